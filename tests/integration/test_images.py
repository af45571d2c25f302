"""Images as they are, imported into containerd and started with no annotation of ours: each kind that is recognised.

Where no monitor can be had the tender's double takes its place, and says what its guest was told.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.integration import guest
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.images import INITRD_PATH, KERNEL_PATH, Image, Symlink
from tests.integration.leaks import LeakCheck
from tests.unit.oci import elf

pytestmark = pytest.mark.timeout(60)

_KVM = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="/dev/kvm is missing: no hvt, not its double either")
_TARGETS = {"spt": elf.SPT, "hvt": elf.HVT}
_TENDERS = ["spt", pytest.param("hvt", marks=_KVM)]
_ENDS = ("say=hello", "exit=0")


@pytest.fixture(scope="module")
def shared(containerd: Containerd, daemon: Daemon, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the tests share, one unikernel after the other."""
    with containerd.cri.pod("unikernel") as pod:
        yield pod


def urunc(reference: str, entrypoint: tuple[str, ...], files: dict[str, bytes], **values: str) -> Image:
    """An image with the urunc.json that bunny would write for it."""
    said = {f"com.urunc.unikernel.{name}": base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return Image(reference, {"/urunc.json": json.dumps(said).encode(), **files}, entrypoint=entrypoint)


def said_by(pod: Pod, containerd: Containerd, image: Image, annotations: Mapping[str, str] | None = None) -> str:
    """What the guest of `image` wrote; it ends by itself, with 0, and its container is removed."""
    containerd.load(image)
    with pod.running(image.reference, annotations=annotations) as container:
        status = containerd.cri.wait_exit(container)
        assert status.exit_code == 0, (status.message, pod.log(container))
        return pod.log(container)


def with_nic(tender: str) -> bytes:
    """A Solo5 kernel for `tender` with one NIC."""
    return elf.solo5(_TARGETS[tender], nets=[b"tap"])


@pytest.mark.parametrize("tender", _TENDERS)
def test_solo5_by_its_notes(tender: str, shared: Pod, containerd: Containerd) -> None:
    image = Image(f"localhost/by-notes-{tender}:test", {"/app": with_nic(tender)}, entrypoint=("/app", *_ENDS))
    assert said_by(shared, containerd, image) == "hello"


@pytest.mark.parametrize("tender", _TENDERS)
def test_nabla_by_its_entry_point(tender: str, shared: Pod, containerd: Containerd) -> None:
    image = Image(
        f"localhost/nabla-{tender}:test",
        {"/node.nabla": with_nic(tender)},
        entrypoint=("/node.nabla",),
        command=("/home/node/app.js",),
    )
    told = json.loads(said_by(shared, containerd, image))
    assert told["cmdline"] == "/node.nabla /home/node/app.js"
    assert told["net"]["addr"] == shared.address


@pytest.mark.parametrize("tender", _TENDERS)
@pytest.mark.parametrize("guest_type", ["rumprun", "mirage"])
def test_urunc_json(guest_type: str, tender: str, shared: Pod, containerd: Containerd) -> None:
    arguments = ("redis-server", "/data/conf") if guest_type == "rumprun" else _ENDS
    image = urunc(
        f"localhost/urunc-{guest_type}-{tender}:test",
        arguments,
        {"/unikernel/app": with_nic(tender)},
        unikernelType=guest_type,
        hypervisor=tender,
        binary="/unikernel/app",
        cmdline="not these",
    )
    said = said_by(shared, containerd, image)
    if guest_type == "rumprun":
        told = json.loads(said)
        assert (told["cmdline"], told["net"]["addr"]) == ("redis-server /data/conf", shared.address)
    else:
        assert said == "hello"


def test_a_pods_annotation_wins_over_urunc_json(shared: Pod, containerd: Containerd) -> None:
    image = urunc(
        "localhost/urunc-annotated:test",
        ("program",),
        {"/unikernel/app": with_nic("spt")},
        unikernelType="mirage",
        hypervisor="spt",
        binary="/unikernel/app",
    )
    annotations = {"com.urunc.unikernel.unikernelType": base64.b64encode(b"rumprun").decode()}
    assert json.loads(said_by(shared, containerd, image, annotations))["cmdline"] == "program"


def test_urunc_json_and_linux(shared: Pod, containerd: Containerd) -> None:
    image = urunc(
        "localhost/urunc-linux:test",
        ("/init", "harness.poweroff=0"),
        {"/unikernel/kernel": guest.kernel().read_bytes(), INITRD_PATH: guest.initrd()},
        unikernelType="linux",
        hypervisor="qemu",
        binary="/unikernel/kernel",
        initrd=INITRD_PATH,
    )
    assert "guest: powering off" in said_by(shared, containerd, image)


def test_a_linux_kernel_by_its_header(shared: Pod, containerd: Containerd) -> None:
    """It boots, and has no root in this image to go on with."""
    image = Image("localhost/kernel-alone:test", {KERNEL_PATH: guest.kernel().read_bytes()}, entrypoint=(KERNEL_PATH,))
    assert "Kernel panic" in said_by(shared, containerd, image)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Symlink("../../../../../../etc/hostname"), r"urunc\.json: the file's path leads out of the image"),
        (b"{", r"urunc\.json: it is not JSON"),
        (
            b'{"com.urunc.unikernel.binary": "/app"}',
            r"urunc\.json: com\.urunc\.unikernel\.binary: '/app' is not the base64",
        ),
        (
            json.dumps(
                {"com.urunc.unikernel.binary": base64.b64encode(b"../../../../../../../boot/vmlinuz").decode()}
            ).encode(),
            "the kernel's path leads out of the image",
        ),
    ],
    ids=["link", "JSON", "base64", "binary"],
)
def test_a_urunc_json_that_is_refused(
    said: bytes | Symlink, words: str, request: pytest.FixtureRequest, shared: Pod, containerd: Containerd
) -> None:
    name = request.node.callspec.id.lower()
    image = Image(
        f"localhost/urunc-bad-{name}:test", {"/urunc.json": said, "/app": with_nic("spt")}, entrypoint=("/app",)
    )
    containerd.load(image)
    with pytest.raises(grpc.RpcError, match=words):
        shared.run(image.reference)


def test_a_nabla_image_of_before_the_notes(shared: Pod, containerd: Containerd) -> None:
    image = Image("localhost/nabla-old:test", {"/node.nabla": elf.image()}, entrypoint=("/node.nabla",))
    containerd.load(image)
    with pytest.raises(grpc.RpcError, match=r"no notes of Solo5's: .*older than Solo5 0\.6"):
        shared.run(image.reference)
