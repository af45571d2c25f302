"""Every row of the decision table in shim/oci/image.py, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from shim.errors import ImageFault, InvalidRequest
from shim.oci.image import Unikernel, recognise
from tests.unit.oci import elf

_HERE = elf.AARCH64 if os.uname().machine == "aarch64" else elf.X86_64
_ELSEWHERE = elf.X86_64 if _HERE == elf.AARCH64 else elf.AARCH64
_LINUX = elf.image([elf.note(b"Xen", elf.PVH, bytes(8))], _HERE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a kernel of each kind and a program."""
    (tmp_path / "bin").mkdir()
    files = {
        "hello.spt": elf.solo5(nets=[b"service0"], machine=_HERE),
        "hello.hvt": elf.solo5(elf.HVT, machine=_HERE),
        "hello.virtio": elf.solo5(elf.VIRTIO, machine=_HERE),
        "blk.spt": elf.solo5(blocks=[b"storage"], machine=_HERE),
        "other": elf.program(_ELSEWHERE),
        "other.spt": elf.solo5(machine=_ELSEWHERE),
        "cut.spt": elf.solo5(machine=_HERE)[:-8],
        "cut": elf.program(_HERE)[:-8],
        "vmlinuz": _LINUX,
        "initrd": b"070701",
        "bin/sh": elf.program(_HERE),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def ask(root: Path, *arguments: str, **wishes: str) -> Unikernel | None:
    annotations: Mapping[str, str] = {f"io.unikernel.{key}": value for key, value in wishes.items()}
    return recognise(root, arguments, annotations)


def found(root: Path, *arguments: str, **wishes: str) -> Unikernel:
    image = ask(root, *arguments, **wishes)
    assert image is not None
    return image


def test_annotation_names_a_file(root: Path) -> None:
    image = found(root, "/bin/sh", "-c", "x", kernel="/hello.spt")
    assert (image.path, image.guest, image.monitor) == (root / "hello.spt", "solo5", "spt")
    assert image.arguments == ("/bin/sh", "-c", "x")


@pytest.mark.parametrize("entry", ["/hello.spt", "hello.spt", "/bin/../hello.spt"])
def test_the_kernels_own_path_is_no_argument(root: Path, entry: str) -> None:
    assert found(root, entry, "a", kernel="/hello.spt").arguments == ("a",)


def test_annotation_with_no_command_line(root: Path) -> None:
    assert found(root, kernel="/hello.spt").arguments == ()


@pytest.mark.parametrize("entry", ["/bin/sh", "sleep"])
def test_annotation_names_a_missing_file_in_a_sidecar(root: Path, entry: str) -> None:
    assert ask(root, entry, kernel="/none") is None


@pytest.mark.parametrize("arguments", [(), ("/none",), ("/hello.spt",), ("/cut.spt",)])
def test_annotation_names_a_missing_file(root: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ImageFault, match="no such kernel in the image"):
        ask(root, *arguments, kernel="/none")


@pytest.mark.parametrize(
    ("entry", "guest", "monitor"),
    [("/hello.spt", "solo5", "spt"), ("/hello.hvt", "solo5", "hvt"), ("/vmlinuz", "linux", "qemu")],
)
def test_entry_point_is_a_kernel(root: Path, entry: str, guest: str, monitor: str) -> None:
    image = found(root, entry, "a", "b")
    assert (image.guest, image.monitor, image.arguments) == (guest, monitor, ("a", "b"))


@pytest.mark.parametrize("arguments", [(), ("",), ("/bin/sh",), ("sh",), ("/none",), ("/bin",), ("/cut",)])
def test_ordinary(root: Path, arguments: tuple[str, ...]) -> None:
    assert ask(root, *arguments) is None


@pytest.mark.parametrize("arguments", [("/bin/sh",), ("sleep", "1")])
def test_other_annotations_reach_sidecars(root: Path, arguments: tuple[str, ...]) -> None:
    assert ask(root, *arguments, monitor="qemu", guest="linux", initrd="/initrd", memory="64") is None


def test_other_annotations_and_a_missing_entry_point(root: Path) -> None:
    with pytest.raises(ImageFault, match="no such kernel"):
        ask(root, "/none", monitor="qemu")


def test_a_broken_solo5_entry_point(root: Path) -> None:
    with pytest.raises(ImageFault, match="truncated or broken"):
        ask(root, "/cut.spt")


def test_an_annotated_file_that_is_no_kernel(root: Path) -> None:
    with pytest.raises(ImageFault, match="no kernel that is known here"):
        ask(root, kernel="/bin/sh")


def test_an_annotated_broken_file(root: Path) -> None:
    with pytest.raises(ImageFault, match="truncated or broken"):
        ask(root, kernel="/cut")


def test_another_architecture(root: Path) -> None:
    with pytest.raises(ImageFault, match=r"built for .*, this node is"):
        ask(root, "/other.spt")


def test_another_architecture_in_a_file_that_is_no_kernel_here(root: Path) -> None:
    with pytest.raises(ImageFault, match=r"built for .*, this node is"):
        ask(root, kernel="/other")
    assert ask(root, "/other") is None


def test_a_kernel_that_wants_a_block_device(root: Path) -> None:
    with pytest.raises(ImageFault, match=r"block devices \[storage\], which are not supported yet"):
        ask(root, "/blk.spt")


def test_a_tender_that_nobody_has(root: Path) -> None:
    with pytest.raises(ImageFault, match=r"virtio.*build it for spt or hvt"):
        ask(root, "/hello.virtio")


def test_everything_for_linux(root: Path) -> None:
    image = found(root, "/vmlinuz", "a", initrd="/initrd", cmdline="debug", memory="64", network="none")
    assert (image.initrd, image.cmdline, image.memory, image.network) == (root / "initrd", "debug", 64, "none")


@pytest.mark.parametrize(
    ("entry", "wishes", "why"),
    [
        ("/vmlinuz", {"monitor": "spt"}, r"io\.unikernel\.monitor: 'spt' contradicts .* linux kernel runs on qemu"),
        ("/vmlinuz", {"monitor": "spt", "guest": "linux"}, r"monitor: 'spt' contradicts io\.unikernel\.guest 'linux'"),
        ("/hello.spt", {"monitor": "hvt"}, "solo5 kernel runs on spt"),
        ("/hello.spt", {"monitor": "qemu", "guest": "solo5"}, r"monitor: 'qemu' contradicts io\.unikernel\.guest"),
        ("/hello.spt", {"guest": "linux"}, r"io\.unikernel\.guest: 'linux' contradicts .* it is solo5"),
        ("/hello.spt", {"initrd": "/initrd"}, r"io\.unikernel\.initrd: .* solo5, which takes none"),
        ("/hello.spt", {"cmdline": "x"}, r"io\.unikernel\.cmdline: .*container's args"),
        (
            "/hello.spt",
            {"monitor": "xen"},
            "'xen' is not a monitor; known are cloud-hypervisor, firecracker, hvt, qemu, spt",
        ),
        ("/hello.spt", {"guest": "osv"}, "'osv' is not a guest; known are solo5, linux"),
    ],
)
def test_contradictions(root: Path, entry: str, wishes: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        ask(root, entry, **wishes)


def test_a_missing_initrd(root: Path) -> None:
    with pytest.raises(ImageFault, match="no such initrd"):
        ask(root, "/vmlinuz", initrd="/none")


def test_a_kernel_behind_a_link_out_of_the_image(root: Path) -> None:
    (root / "bin" / "k").symlink_to("../../../../etc/passwd")
    with pytest.raises(ImageFault, match="leads out of the image, at /bin/k"):
        ask(root, kernel="/bin/k")
