"""Firecracker: the real one with a guest of sixty bytes, and a double of it with a guest that is on the network.

The real one needs KVM, and this machine's interprets a whole kernel: it takes minutes to its first line. So what is
proved of the real one is that it takes what we tell it, attaches its taps and ends as we say; frames pass the double.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import grpc
import pytest

from shim import config
from shim.monitors.base import Disk, Machine, Run
from shim.monitors.firecracker import CONFIG, Firecracker
from tests.integration import doubles, guest, images, paths, small_kernel
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually

pytestmark = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="/dev/kvm is missing: Firecracker not run")

ENDS, STAYS, PACKED = "localhost/ends:test", "localhost/stays:test", "localhost/packed:test"
ANNOTATIONS = {"io.unikernel.monitor": "firecracker"}


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd) -> None:
    kernels = {
        ENDS: small_kernel.kernel(),
        STAYS: small_kernel.kernel(stays=True),
        PACKED: guest.kernel().read_bytes(),
    }
    containerd.load(
        *(images.Image(name, {"/kernel": kernel}, entrypoint=("/kernel",)) for name, kernel in kernels.items())
    )


def real() -> Path:
    if os.uname().machine != "x86_64":
        pytest.skip("there is no Firecracker for this machine to be had: not run")
    return paths.cached("firecracker", "firecracker")


def started(pod: Pod, image: str, *words: str, user: int = 0) -> str:
    security = {"run_as_user": pod.client.messages.Int64Value(value=user)} if user else {}
    return pod.run(image, args=words, annotations=ANNOTATIONS, security=security)


async def test_the_real_one_takes_every_key_that_we_write(run: Run, tmp_path: Path) -> None:
    for name in ("initrd", "disk0", "disk1"):
        (tmp_path / name).write_bytes(bytes(4096))
    (tmp_path / "kernel").write_bytes(small_kernel.kernel())
    machine = Machine(
        kernel=tmp_path / "kernel",
        memory=64,
        words=("plain", 'A="two words"', "back\\slash", "--", "a,b"),
        initrd=tmp_path / "initrd",
        disks=(Disk(path=tmp_path / "disk0"), Disk(path=tmp_path / "disk1", read_only=False)),
        cpus=2,
    )
    launch = await Firecracker(config.Firecracker(path=os.fspath(real())), run).launch(machine)
    written = tmp_path / CONFIG.name
    written.write_bytes(launch.files[CONFIG])
    done = await run([os.fspath(written) if word == str(CONFIG) else word for word in launch.argv], timeout=20)
    console = done.stdout.decode(errors="replace")
    assert done.status == 0, console + done.stderr.decode(errors="replace")
    # Before the "--", where Linux looks for them, Firecracker puts its own words: the places of its devices.
    assert console.startswith('plain A="two words" back\\slash ')
    assert console.endswith(" -- a,b\n")


BROKEN: tuple[dict[str, object], ...] = (
    {"boot-source": {"kernel_image_path": "/proc/self/exe", "boot_argz": ""}},
    {"boot-source": {"kernel_image_path": "/no/such/kernel"}},
    {"boot-source": {"boot_args": ""}},
    {"machine-config": {"vcpu_count": 1, "mem_size_mib": 32, "memory": 32}},
    {"machine-config": {"vcpu_count": "1", "mem_size_mib": 32}},
    {"machine-config": {"vcpu_count": 33, "mem_size_mib": 32}},
    {"drives": [{"drive_id": "disk0", "is_root_device": False, "path_on_host": "/no/such/disk"}]},
    {"drives": [{"drive_id": "disk0", "path_on_host": "/proc/self/exe", "is_read_only": True}]},
    {
        "network-interfaces": [
            {"iface_id": "net0", "host_dev_name": "tap0", "guest_mac": "02:00:00:00:00:01", "mtu": 1500}
        ]
    },
    {"network-interfaces": [{"iface_id": "net0"}]},
)


async def test_the_double_refuses_what_the_real_one_refuses(run: Run, tmp_path: Path) -> None:
    programs = (real(), doubles.place(tmp_path, "firecracker", "v1.12.1"))
    kernel, written = tmp_path / "kernel", tmp_path / "configuration"
    kernel.write_bytes(small_kernel.kernel())
    for broken in BROKEN:
        whole = {"boot-source": {"kernel_image_path": str(kernel), "boot_args": ""}, "drives": [], **broken}
        written.write_text(json.dumps(whole))
        for program in programs:
            done = await run([str(program), "--no-api", "--config-file", str(written), "--level", "Error"], timeout=5)
            assert done.status == 1, f"{program} takes {broken}"


def test_the_real_one_in_a_pod(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    doubles.lend(node.base, "firecracker", real())
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        netns = containerd.netns(pod.address)
        ending = started(pod, ENDS, "it 'speaks'", "twice")
        assert cri.wait_exit(ending).exit_code == 0
        (line,) = (line for line in pod.log(ending).splitlines() if "console=" in line)
        assert f" ip={pod.address}::" in line
        assert line.endswith("-- \"it 'speaks'\" twice")

        staying = started(pod, STAYS, user=1000)
        show = ("nsenter", f"--net={netns}", "ip", "-json", "link", "show", "type", "tun")
        eventually(lambda: [link["flags"] for link in json.loads(node.run(*show)) if "LOWER_UP" in link["flags"]])
        assert os.stat(f"/proc/{cri.pid(staying)}").st_uid == 1000
        cri.stop(staying)
        assert cri.wait_exit(staying).exit_code == 128 + signal.SIGTERM


def test_what_the_real_one_cannot_run_it_says_itself(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """Firecracker up to 1.16 loads no compressed kernel."""
    doubles.lend(node.base, "firecracker", real())
    with containerd.cri.pod("unikernel") as pod, pytest.raises(grpc.RpcError, match=r"BuildMicroVMFromJson.*Elf"):
        started(pod, PACKED)


def test_a_guest_on_the_double_is_reached(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    doubles.place(node.base, "firecracker", "v1.16.0")
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        container = started(pod, STAYS, user=1000)
        assert node.ping(pod.address)
        assert node.neighbour(pod.address) == before
        eventually(lambda: "mtu=1500" in pod.log(container).splitlines())
        cri.stop(container)
        assert cri.wait_exit(container).exit_code == 128 + signal.SIGTERM
        assert node.ping(pod.address), "the pod has its address back"


def test_one_that_is_too_old_is_refused(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    doubles.place(node.base, "firecracker", "v1.4.1")
    with containerd.cri.pod("unikernel") as pod, pytest.raises(grpc.RpcError, match=r"1\.4 is too old: 1\.5 or newer"):
        started(pod, STAYS)
