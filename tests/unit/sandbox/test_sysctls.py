"""Which sysctls are a pod's to set."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.sandbox import sysctls
from shim.sandbox.record import Pod


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("net.ipv4.ip_forward", ("net", "ipv4", "ip_forward")),
        ("net/ipv4/ip_forward", ("net", "ipv4", "ip_forward")),
        ("net.ipv4.conf.eth0/1.forwarding", ("net", "ipv4", "conf", "eth0.1", "forwarding")),
        ("net/ipv4/conf/eth0.1/forwarding", ("net", "ipv4", "conf", "eth0.1", "forwarding")),
    ],
)
def test_dots_or_slashes_separate_whichever_comes_first(name: str, parts: tuple[str, ...]) -> None:
    assert sysctls.parts(name) == parts


@pytest.mark.parametrize("name", ["", ".", "net..x", "net/../kernel/x", "../x", "net.//.x", "/etc/passwd", "net.ipv4."])
def test_no_name_leads_out_of_proc_sys(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no sysctl's name"):
        sysctls.parts(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.core.somaxconn", "network"),
        ("net", ""),
        ("kernel.shmmax", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel/sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("fs.mqueue", "ipc"),
        ("kernel.domainname", "uts"),
        ("kernel.hostname", ""),  # the pod has a field for it
        ("kernel.shmmax.x", ""),
        ("kernel.pid_max", ""),
        ("vm.swappiness", ""),
    ],
)
def test_each_belongs_to_a_kind_of_namespace_or_to_the_node(name: str, kind: str) -> None:
    assert sysctls.kind_of(name) == kind


def test_what_the_pod_shares_with_the_node_is_not_its_to_set() -> None:
    own = {"net.core.somaxconn": "1", "kernel.sem": "1", "kernel.domainname": "x"}
    sysctls.check(Pod(netns="/run/netns/p", sysctls=own))
    for name, pod in (
        ("net.core.somaxconn", Pod(netns="", sysctls=own)),
        ("kernel.domainname", Pod(netns="", sysctls={"kernel.domainname": "x"})),
        ("kernel.sem", Pod(netns="/run/netns/p", host_ipc=True, sysctls=own)),
    ):
        with pytest.raises(InvalidRequest, match="shares the node's") as refused:
            sysctls.check(pod)
        assert refused.value.subject == name


def test_the_whole_nodes_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequest, match="whole node's") as refused:
        sysctls.check(Pod(netns="/run/netns/p", sysctls={"vm.swappiness": "1"}))
    assert refused.value.subject == "vm.swappiness" and refused.value.remedy
