"""Nothing of the node is reached: each path that an image or a pod can name, leading out of the image in each way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shim.errors import ImageFault, InvalidRequest
from tests.unit.oci.asking import LINUX, ask, found, urunc_json
from tests.unit.oci.urunc_file import file


@pytest.fixture
def outside(root: Path) -> Path:
    """A kernel on the node, beside the image."""
    path = root.parent / f"{root.name}-outside"
    path.write_bytes(LINUX)
    return path


def _climb(outside: Path) -> str:
    return f"../{outside.name}"


@pytest.mark.parametrize("said", ["io.unikernel.kernel", "binary", "entry"])
@pytest.mark.parametrize("way", ["path", "link"])
def test_a_kernel(root: Path, outside: Path, said: str, way: str) -> None:
    climbing = _climb(outside)
    if way == "link":
        (root / "k").symlink_to(climbing)
        climbing = "/k"
    with pytest.raises(ImageFault, match="the kernel's path leads out of the image, at"):
        match said:
            case "io.unikernel.kernel":
                ask(root, kernel=climbing)
            case "binary":
                urunc_json(root, binary=climbing)
                ask(root)
            case _:
                ask(root, climbing, guest="linux")


def test_an_entry_point_is_no_kernel_then(root: Path, outside: Path) -> None:
    (root / "k").symlink_to(_climb(outside))
    assert ask(root, "/k") is None


@pytest.mark.parametrize(
    ("urunc_name", "our_name", "what"), [("initrd", "initrd", "initrd"), ("block", "block", "block device's image")]
)
@pytest.mark.parametrize("way", ["path", "link", "directory", "absolute"])
def test_a_file_beside_the_kernel(
    root: Path, outside: Path, urunc_name: str, our_name: str, what: str, way: str
) -> None:
    path = {
        "path": _climb(outside),
        "link": "x",
        "directory": f"up/{outside.name}",
        "absolute": f"/bin/../../{outside.name}",
    }[way]
    (root / "x").symlink_to(_climb(outside))
    (root / "up").symlink_to("..")
    why = f"the {what}'s path leads out of the image, at"
    with pytest.raises(ImageFault, match=why):
        ask(root, "/vmlinuz", **{our_name: path})
    urunc_json(root, binary="/vmlinuz", **{urunc_name: path})
    with pytest.raises(ImageFault, match=why):
        ask(root)


@pytest.mark.parametrize("target", ["../../../etc/passwd", "../image.json", "up/image.json"])
def test_urunc_json_itself(root: Path, target: str) -> None:
    (root / "up").symlink_to("..")
    (root.parent / "image.json").write_bytes(file({"binary": "/vmlinuz"}))
    (root / "urunc.json").symlink_to(target)
    with pytest.raises(ImageFault, match=r"urunc\.json: the file's path leads out of the image, at"):
        ask(root, "/bin/sh")


def test_an_absolute_link_stays_inside(root: Path, outside: Path) -> None:
    (root / "urunc.json").symlink_to(outside)
    with pytest.raises(ImageFault, match=r"urunc\.json: there is no such file in the image"):
        ask(root, "/bin/sh")
    (root / "urunc.json").unlink()
    (root / "etc").mkdir()
    (root / "etc" / "u.json").write_bytes(file({"binary": "/vmlinuz"}))
    (root / "urunc.json").symlink_to("/etc/u.json")
    assert found(root, "/bin/sh").path == root / "vmlinuz"


def test_urunc_json_is_no_file(root: Path) -> None:
    os.mkfifo(root / "urunc.json")
    with pytest.raises(ImageFault, match=r"urunc\.json: the file is not a regular file"):
        ask(root, "/bin/sh")


def test_urunc_json_is_a_directory(root: Path) -> None:
    (root / "urunc.json").mkdir()
    with pytest.raises(ImageFault, match="not a regular file"):
        ask(root, "/bin/sh")


def test_urunc_json_is_too_long(root: Path) -> None:
    (root / "urunc.json").touch()
    os.truncate(root / "urunc.json", 1 << 40)
    with pytest.raises(ImageFault, match=r"urunc\.json: it has more than 65536 bytes"):
        ask(root, "/bin/sh")


@pytest.mark.parametrize("link", ["/proc/self/exe", "/proc/1/environ", "urunc.json"])
def test_urunc_json_is_a_magic_or_endless_link(root: Path, link: str) -> None:
    (root / "urunc.json").symlink_to(link)
    with pytest.raises(ImageFault, match=r"urunc\.json: "):
        ask(root, "/bin/sh")


@pytest.mark.parametrize("field", ["kernel", "initrd", "block"])
def test_a_path_with_a_nul(root: Path, field: str) -> None:
    with pytest.raises((ImageFault, InvalidRequest)):
        ask(root, "/vmlinuz", **{field: "/vmlinuz\0"})


def test_a_block_device_of_the_node(root: Path) -> None:
    with pytest.raises(InvalidRequest, match="the pod has no block device '/dev/sda'"):
        ask(root, "/vmlinuz", block="/dev/sda")
    urunc_json(root, binary="/vmlinuz", block="/dev/sda")
    with pytest.raises(InvalidRequest, match=r"urunc\.json: .*block: the pod has no block device '/dev/sda'"):
        ask(root)
