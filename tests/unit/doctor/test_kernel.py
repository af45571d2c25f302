"""The kernel and the devices: each thing missing in turn, and what is said of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from shim.config import Dataplane
from shim.doctor import devices, kernel
from shim.doctor.devices import Devices
from shim.doctor.finding import Finding, Outcome
from shim.doctor.kernel import Kernel
from shim.doctor.programs import Monitors, Program
from shim.doctor.trial import Trial
from shim.monitors.acceleration import Acceleration

ALL = 1 << 12 | 1 << 21 | 1 << 24 | 1 << 39
KERNEL = Kernel(root=True, release="6.1.0-30-amd64", capabilities=ALL, v2=("cpu", "memory"))
MODULES = frozenset({"bridge", "tun", "sch_ingress", "cls_bpf", "macvtap", "vhost_net", "kvm_amd"})
NO_DEVICE = os.strerror(errno.ENODEV)
UNKNOWN = os.strerror(errno.EOPNOTSUPP)


def of(findings: list[Finding], subject: str) -> Finding:
    """The one finding of a subject."""
    (found,) = (each for each in findings if each.subject == subject)
    return found


def judged(seen: Kernel, trial: Trial = Trial(), dataplane: Dataplane = "auto") -> list[Finding]:  # noqa: B008
    return kernel.judge(seen, trial, dataplane)


def test_a_node_as_it_should_be() -> None:
    assert {each.outcome for each in judged(KERNEL)} == {Outcome.GOOD}


@pytest.mark.parametrize(
    ("release", "outcome"),
    [
        ("5.8.0", Outcome.GOOD),
        ("6.18.44-x", Outcome.GOOD),
        ("5.7.19", Outcome.BAD),
        ("4.19.0", Outcome.BAD),
        ("odd", Outcome.BAD),
    ],
)
def test_the_version(release: str, outcome: Outcome) -> None:
    assert of(judged(msgspec.structs.replace(KERNEL, release=release)), "version").outcome is outcome


@pytest.mark.parametrize("bit", [12, 21, 39])
def test_a_root_without_a_capability(bit: int) -> None:
    found = of(judged(msgspec.structs.replace(KERNEL, capabilities=ALL & ~(1 << bit))), "capabilities")
    assert found.outcome is Outcome.BAD and "CAP_" in found.what and found.fix


def test_a_root_that_cannot_lower_oom_scores() -> None:
    found = of(judged(msgspec.structs.replace(KERNEL, capabilities=ALL & ~(1 << 24))), "capabilities")
    assert found.outcome is Outcome.DOUBTFUL and "restrict_oom_score_adj" in found.fix


@pytest.mark.parametrize(
    ("v1", "v2", "outcome", "word"),
    [
        ((), ("cpu", "memory"), Outcome.GOOD, "v2"),
        (("cpu", "memory"), None, Outcome.GOOD, "v1"),
        (("cpu",), (), Outcome.GOOD, "hybrid"),
        ((), None, Outcome.BAD, "none"),
        ((), (), Outcome.BAD, "no controller"),
    ],
)
def test_cgroups(v1: tuple[str, ...], v2: tuple[str, ...] | None, outcome: Outcome, word: str) -> None:
    found = of(judged(msgspec.structs.replace(KERNEL, v1=v1, v2=v2)), "cgroups")
    assert found.outcome is outcome and word in found.what


@pytest.mark.parametrize(
    ("trial", "subject", "bad_for", "fix"),
    [
        (Trial(bridge=UNKNOWN), "bridge", {"bridge"}, "modprobe --all bridge"),
        (
            Trial(filters=UNKNOWN),
            "traffic control",
            {"auto", "mirror", "macvtap"},
            "modprobe --all sch_ingress cls_bpf",
        ),
        (Trial(programs="invalid"), "traffic control", {"auto", "mirror", "macvtap"}, "network.dataplane"),
        (Trial(macvtap=UNKNOWN), "macvtap", {"macvtap"}, "modprobe --all macvtap"),
    ],
)
@pytest.mark.parametrize("dataplane", ["auto", "bridge", "mirror", "macvtap"])
def test_what_networks_are_made_of(
    trial: Trial, subject: str, bad_for: set[str], fix: str, dataplane: Dataplane
) -> None:
    found = of(judged(msgspec.structs.replace(KERNEL, modules=MODULES), trial, dataplane), subject)
    assert (found.outcome is Outcome.BAD) == (dataplane in bad_for)
    assert found.outcome is not Outcome.GOOD and found.why and fix in found.fix


def test_a_kernel_that_has_no_such_module_must_be_another() -> None:
    assert "CONFIG_BRIDGE" in of(judged(KERNEL, Trial(bridge=UNKNOWN)), "bridge").fix


def test_who_is_not_root_is_told_what_was_not_looked_at() -> None:
    stranger = msgspec.structs.replace(KERNEL, root=False, capabilities=0)
    trial = Trial(namespace=os.strerror(errno.EPERM))
    found = [
        *judged(stranger, trial),
        *devices.judge(Devices(kvm=os.strerror(errno.EACCES)), stranger, trial, Monitors(programs=())),
    ]
    unseen = {each.subject for each in found if each.outcome is Outcome.UNSEEN}
    assert unseen == {"capabilities", "bridge", "traffic control", "macvtap", "/dev/net/tun", "/dev/kvm"}
    assert all("root" in each.fix for each in found if each.outcome is Outcome.UNSEEN)


def test_what_is_read_of_proc(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    cgroups = tmp_path / "unified"
    cgroups.mkdir()
    (cgroups / "cgroup.controllers").write_text("memory cpu\n")
    (tmp_path / "self/mountinfo").write_text(
        f"30 1 0:26 / {cgroups} rw - cgroup2 none rw\n31 1 0:27 / /c/pids rw - cgroup cgroup rw,pids\n"
        "32 1 0:28 / /c/systemd rw - cgroup cgroup rw,name=systemd\n"
    )
    (tmp_path / "self/status").write_text("Name:\tx\nCapEff:\t0000000000001000\n")
    (tmp_path / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\npids\t1\t2\t1\nmemory\t0\t2\t1\n")
    modules = tmp_path / "modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(
        "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko.xz\nkernel/x/vhost-net.ko:\n"
    )
    seen = kernel.observe(tmp_path, tmp_path / "modules")
    assert seen.v1 == ("pids",) and seen.v2 == ("cpu", "memory") and seen.capabilities == 1 << 12
    assert seen.modules == {"bridge", "vhost_net"}


def device(seen: Devices, path: str, trial: Trial = Trial(), **monitors: object) -> Finding:  # noqa: B008
    guests = msgspec.structs.replace(Monitors(programs=()), **monitors)
    return of(devices.judge(seen, msgspec.structs.replace(KERNEL, modules=MODULES), trial, guests), path)


def test_no_kvm() -> None:
    found = device(Devices(module="kvm_amd", kvm=NO_DEVICE), "/dev/kvm")
    assert found.outcome is Outcome.DOUBTFUL and "TCG" in found.why and found.fix == "modprobe --all kvm_amd"
    hvt = Program(name="hvt", path="/bin/solo5-hvt", kvm=True)
    assert "hvt cannot run" in device(Devices(kvm=NO_DEVICE), "/dev/kvm", programs=(hvt,)).why


def test_a_kvm_that_is_there_proves_nothing() -> None:
    tcg, kvm = Acceleration(accel="tcg"), Acceleration(accel="kvm")
    assert device(Devices(), "/dev/kvm", acceleration=kvm).outcome is Outcome.GOOD
    assert device(Devices(), "/dev/kvm", acceleration=tcg).outcome is Outcome.DOUBTFUL
    assert device(Devices(), "/dev/kvm", acceleration=tcg, accel="tcg").outcome is Outcome.GOOD
    assert "no guest was run" in device(Devices(), "/dev/kvm").what


@pytest.mark.parametrize(("refusal", "fix"), [(os.strerror(errno.ENOENT), "mknod"), (NO_DEVICE, "modprobe --all tun")])
def test_no_tap(refusal: str, fix: str) -> None:
    found = device(Devices(), "/dev/net/tun", Trial(tap=refusal))
    assert found.outcome is Outcome.BAD and fix in found.fix


def test_vhost_is_missed_under_kvm_alone() -> None:
    seen = Devices(vhost=NO_DEVICE)
    assert device(seen, "/dev/vhost-net", acceleration=Acceleration(accel="kvm")).outcome is Outcome.DOUBTFUL
    assert device(seen, "/dev/vhost-net", acceleration=Acceleration(accel="tcg")).outcome is Outcome.ABSENT


def test_a_device_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "kvm").write_text("")
    seen = devices.observe(tmp_path / "kvm", tmp_path / "none")
    assert "no machine" in seen.kvm and seen.vhost == os.strerror(errno.ENOENT)
