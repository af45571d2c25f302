"""Images as they are, imported into containerd and started with no annotation of ours: each kind that is recognised
(`kinds.py` says whose kernels they are), and what is refused."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.integration import doubles, kinds, paths, small_kernel
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.images import Image, Symlink
from tests.integration.kinds import Kind
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.unit.oci import elf

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the kernels are for x86-64: not run"),
]

_KVM = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="/dev/kvm is missing, which the monitor is given")
_KINDS = [
    *(pytest.param(kind, id=f"{name}, spt") for name, kind in kinds.on_solo5("spt").items()),
    *(pytest.param(kind, id=f"{name}, hvt", marks=_KVM) for name, kind in kinds.on_solo5("hvt").items()),
    *(pytest.param(kind, id=f"{name}, qemu") for name, kind in kinds.on_qemu().items()),
    *(pytest.param(kind, id=f"{name}, firecracker", marks=_KVM) for name, kind in kinds.on_firecracker().items()),
]


@pytest.fixture(scope="module")
def shared(node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the tests share, one unikernel after the other."""
    doubles.lend(node.base, "firecracker", paths.cached("firecracker", "firecracker"))
    with containerd.cri.pod("unikernel", dns={"servers": [kinds.SERVER], "searches": [kinds.DOMAIN]}) as pod:
        yield pod


def said_by(pod: Pod, containerd: Containerd, image: Image, annotations: Mapping[str, str] | None = None) -> str:
    """What the guest of `image` wrote; it ends by itself, with 0, and its container is removed."""
    containerd.load(image)
    with pod.running(image.reference, annotations=annotations) as container:
        status = containerd.cri.wait_exit(container)
        assert status.exit_code == 0, (status.message, pod.log(container))
        return pod.log(container)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_kind_that_is_recognised(kind: Kind, shared: Pod, containerd: Containerd) -> None:
    said = said_by(shared, containerd, kind.image())
    for told in kind.told(shared):
        assert any(line.endswith(told) for line in said.splitlines()), (told, said)


def test_a_pods_annotation_wins_over_urunc_json(shared: Pod, containerd: Containerd) -> None:
    image = kinds.urunc(
        ("program",), {"/app": kinds.with_nic()}, unikernelType="mirage", hypervisor="spt", binary="/app"
    )
    annotations = {"com.urunc.unikernel.unikernelType": base64.b64encode(b"rumprun").decode()}
    assert json.loads(said_by(shared, containerd, image, annotations))["cmdline"] == "program"


def test_our_description_wins_over_uruncs(shared: Pod, containerd: Containerd) -> None:
    theirs = kinds.urunc((), {"/theirs": kinds.OSV}, unikernelType="rumprun", hypervisor="spt", binary="/theirs")
    ours = kinds.packed(("told", "exit=0"), {"/ours": kinds.with_nic()}, kernel="/ours", guest="mirage")
    both = kinds.image(tuple(ours.entrypoint), {**theirs.files, **ours.files})
    assert said_by(shared, containerd, both).startswith(f"--ipv4={shared.address}/24 ")


def test_a_kernel_with_the_marks_of_two_families(shared: Pod, containerd: Containerd) -> None:
    """docs/guests.md has their order."""
    code = small_kernel.code("pvh")
    marks = [elf.note(b"Xen", elf.GUEST_OS, b"osv\0"), elf.pvh(code.address)]
    image = kinds.image(("/app", "/hello"), {"/app": elf.image(marks, sections=[".uk_bootinfo"], code=code)})
    assert said_by(shared, containerd, image).startswith("--power-off-on-abort ")


def _entry(data: bytes) -> Image:
    return kinds.image(("/app",), {"/app": data})


def _loaded(data: bytes) -> Image:
    return kinds.packed(("/app",), {"/loader": kinds.HERMITS_LOADER, "/app": data}, kernel="/loader")


def _named(data: bytes) -> Image:
    return kinds.packed(("word",), {"/app": data}, kernel="/app")


_ELSEWHERE, _CUT = "/app: the kernel is built for aarch64, this node is x86_64", "/app: .*truncated"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        pytest.param(_entry(elf.solo5(machine=elf.AARCH64)), _ELSEWHERE, id="Solo5 for another machine"),
        pytest.param(_entry(elf.unikraft(elf.AARCH64)), _ELSEWHERE, id="Unikraft for another machine"),
        pytest.param(_entry(elf.osv(elf.AARCH64)), _ELSEWHERE, id="OSv for another machine"),
        pytest.param(_loaded(elf.hermit(elf.AARCH64)), _ELSEWHERE, id="Hermit for another machine"),
        pytest.param(_entry(elf.arm64()), _ELSEWHERE, id="Linux for another machine"),
        pytest.param(_entry(kinds.with_nic()[:-8]), _CUT, id="Solo5 truncated"),
        pytest.param(_entry(kinds.UNIKRAFT[:-8]), _CUT, id="Unikraft truncated"),
        pytest.param(_entry(kinds.OSV[:-8]), _CUT, id="OSv truncated"),
        pytest.param(_loaded(elf.hermit()[:-8]), _CUT, id="Hermit truncated"),
        pytest.param(_entry(elf.bzimage()[:-8]), _CUT, id="Linux truncated"),
        pytest.param(_named(kinds.UNIKRAFT[:-8]), _CUT, id="named and truncated"),
        pytest.param(_entry(elf.hermit()), "a Hermit program is started by Hermit's loader", id="Hermit alone"),
        pytest.param(
            kinds.image(("/node.nabla",), {"/node.nabla": elf.image()}),
            r"no notes of Solo5's: .*older than Solo5 0\.6",
            id="Nabla of before the notes",
        ),
    ],
)
def test_marks_that_are_not_enough(image: Image, words: str, shared: Pod, containerd: Containerd) -> None:
    containerd.load(image)
    with pytest.raises(grpc.RpcError, match=words):
        shared.run(image.reference)


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
def test_a_urunc_json_that_is_refused(said: bytes | Symlink, words: str, shared: Pod, containerd: Containerd) -> None:
    image = kinds.image(("/app",), {"/urunc.json": said, "/app": kinds.with_nic()})
    containerd.load(image)
    with pytest.raises(grpc.RpcError, match=words):
        shared.run(image.reference)
