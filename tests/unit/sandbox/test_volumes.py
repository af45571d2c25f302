"""What of a container's storage reaches its guest: each row of the tables in `shim.sandbox.volumes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from shim.errors import ImageFault, InvalidRequest
from shim.guests.base import Volume
from shim.guests.registry import guests
from shim.oci.image import Block, Unikernel
from shim.oci.kernel import Kernel
from shim.oci.volumes import BlockDevice, Role
from shim.sandbox.volumes import Abilities, Content, Part, RootFileSystem, Share, Storage, decide, told

ROOT = RootFileSystem(directory=Path("/rootfs"))
DEVICE = RootFileSystem(directory=Path("/rootfs"), device=Path("/dev/dm-1"), format="ext4")
LINUX = Abilities(
    monitor="qemu", roots=("squashfs", "ext4", "cpio", "9p"), mounts=("squashfs", "9p"), shares_directories=True
)
SOLO5 = Abilities(monitor="spt", writes_disks=True)
OTHER = Abilities(monitor="qemu", roots=("cpio", "iso9660"), mounts=("iso9660",))
INITRD = Path("/rootfs/initrd")


def image(guest: str = "linux", *, devices: tuple[str, ...] | None = None, **fields: Any) -> Unikernel:
    kernel = Kernel(family="", machine="x86_64", block_devices=devices)
    return Unikernel(path=Path("/rootfs/kernel"), kernel=kernel, guest=guest, monitor="qemu", **fields)


def volume(target: str = "/conf", **fields: Any) -> Content:
    told = {"nature": "directory", "read_only": True, "role": Role.VOLUME, "source": Path("/vol") / target.lstrip("/")}
    return Content(target=target, **{**told, **fields})


def decided(
    unikernel: Unikernel, *contents: Content, can: Abilities = LINUX, root: RootFileSystem = ROOT, devices: Any = ()
) -> Storage:
    return decide(unikernel, root, contents, tuple(devices), can)


def tree(format: str, **fields: Any) -> Part:
    return Part(origin="tree", source=ROOT.directory, target="/", format=format, **fields)


# The root.


def test_a_kernel_alone_is_given_nothing_to_mount() -> None:
    bare = RootFileSystem(directory=ROOT.directory, is_bare=True)
    assert decided(image(), root=bare) == Storage()
    assert decided(image(root="ext4"), root=bare).parts == (tree("ext4", read_only=False),)


@pytest.mark.parametrize(
    ("guest", "asked", "is_told"),
    [("unikraft", "auto", True), ("unikraft", "none", False), ("linux", "auto", False), ("hermit", "auto", False)],
)
def test_who_is_told_that_its_root_is_its_own_initrd(guest: str, asked: str, is_told: bool) -> None:
    can = Abilities(monitor="qemu", roots=guests()[guest].roots)
    found = decided(image(guest, initrd=INITRD, root=asked), can=can)
    assert found == Storage(unpacked=is_told)
    assert told(found, "/", ()) == ((Volume(target="/", format="cpio"),) if is_told else ())


@pytest.mark.parametrize(
    ("unikernel", "can", "part"),
    [
        (image(), LINUX, tree("squashfs")),
        (image(initrd=INITRD), LINUX, None),
        (image(root="none"), LINUX, None),
        (image("solo5"), SOLO5, None),
        (image("unikraft"), OTHER, None),
        (image("rumprun", devices=("disk",)), OTHER, tree("iso9660", device="disk")),
        (image("rumprun", devices=()), OTHER, None),
        (image(root="squashfs", initrd=INITRD), LINUX, tree("squashfs")),
        (image("unikraft", root="iso9660"), OTHER, tree("iso9660")),
        (image(root="ext4"), LINUX, tree("ext4", read_only=False)),
    ],
)
def test_the_root(unikernel: Unikernel, can: Abilities, part: Part | None) -> None:
    assert decided(unikernel, can=can) == Storage(parts=(part,) if part else ())


def test_the_images_block_is_the_root_and_comes_first() -> None:
    blocks = (Block(path=Path("/rootfs/a")), Block(path=Path("/rootfs/b"), target="/", read_only=True))
    parts = decided(image(blocks=blocks)).parts
    assert [(part.origin, part.source.name, part.target) for part in parts] == [("file", "b", "/"), ("file", "a", "")]
    with pytest.raises(
        InvalidRequest, match=r"io.unikernel.root: 'ext4' and the block b would both be the guest's root"
    ):
        decided(image(blocks=blocks, root="ext4"))


def test_a_root_that_may_not_be_written_to() -> None:
    read_only = msgspec.structs.replace(ROOT, read_only=True)
    assert decided(image(root="ext4"), root=read_only).parts == (tree("ext4"),)


def test_a_root_file_system_that_is_a_device_already() -> None:
    device = Part(origin="device", source=Path("/dev/dm-1"), target="/", format="ext4", read_only=False)
    assert decided(image(), root=DEVICE).parts == (device,)
    assert decided(image(root="ext4"), root=DEVICE).parts == (device,)
    assert decided(image(root="squashfs"), root=DEVICE).parts == (tree("squashfs"),)
    assert decided(image(), root=msgspec.structs.replace(DEVICE, format="xfs")).parts == (tree("squashfs"),)
    assert decided(image(initrd=INITRD), root=DEVICE) == Storage()


def test_a_root_that_is_shared() -> None:
    assert decided(image(root="9p")).shares == (Share(source=ROOT.directory, target="/", read_only=False),)


def test_a_root_that_is_an_initrd() -> None:
    found = decided(image(root="cpio")).initrd
    assert found is not None and (found.tree, found.extra) == (ROOT.directory, {})
    with pytest.raises(InvalidRequest, match=r"io.unikernel.root: the image has an initrd of its own"):
        decided(image(root="cpio", initrd=INITRD))


@pytest.mark.parametrize(
    ("unikernel", "can", "works"),
    [
        (image(root="zfs"), LINUX, "auto, none, squashfs, ext4, cpio, 9p"),
        (
            image(root="9p"),
            msgspec.structs.replace(LINUX, shares_directories=False),
            "auto, none, squashfs, ext4, cpio",
        ),
        (image("solo5", root="iso9660"), SOLO5, "auto, none"),
    ],
)
def test_a_root_that_cannot_be(unikernel: Unikernel, can: Abilities, works: str) -> None:
    with pytest.raises(InvalidRequest, match=f"io.unikernel.root: .* have no root that is .*; choose one of {works}$"):
        decided(unikernel, can=can)


# Volumes.


def test_volumes_are_part_of_the_roots_image() -> None:
    found = decided(image(), volume(), volume("/etc/app.ini", nature="file"))
    wanted = {"/conf": Path("/vol/conf"), "/etc/app.ini": Path("/vol/etc/app.ini")}
    assert found == Storage(parts=(tree("squashfs", extra=wanted),))


def test_volumes_are_part_of_a_linux_guests_initrd() -> None:
    found = decided(image(initrd=INITRD), volume(), volume("/etc/app.ini", nature="file"))
    assert found.parts == () and found.initrd is not None
    assert found.initrd.tree is None and set(found.initrd.extra) == {"/conf", "/etc/app.ini"}
    made = decided(image("unikraft", root="cpio"), volume("/f", nature="file"), can=OTHER).initrd
    assert made is not None and made.tree == ROOT.directory and set(made.extra) == {"/f"}


def test_a_volume_is_an_image_of_its_own_where_the_guest_can_mount_it() -> None:
    own = Part(origin="tree", source=Path("/vol/conf"), target="/conf", format="iso9660")
    assert decided(image("unikraft"), volume(), can=OTHER).parts == (own,)
    rumprun = decided(image("rumprun", root="iso9660"), volume(), can=OTHER)
    assert [(part.target, part.extra) for part in rumprun.parts] == [("/", {}), ("/conf", {})]
    block = Block(path=Path("/rootfs/b"), target="/")
    assert [part.target for part in decided(image(blocks=(block,)), volume()).parts] == ["/", "/conf"]


def test_a_volume_is_shared_where_that_is_all_that_there_is() -> None:
    can = Abilities(monitor="qemu", mounts=("zfs", "9p"), shares_directories=True)
    found = decided(image("nanos"), volume(), volume("/data", read_only=False), can=can)
    assert [(share.target, share.read_only) for share in found.shares] == [("/conf", True), ("/data", False)]


def test_a_shared_root_comes_first_and_holds_no_files() -> None:
    found = decided(image(root="9p"), volume("/data", read_only=False))
    assert [share.target for share in found.shares] == ["/", "/data"]
    with pytest.raises(InvalidRequest, match=r"/etc/app.ini: this volume cannot reach a linux guest"):
        decided(image(root="9p"), volume("/etc/app.ini", nature="file"))


@pytest.mark.parametrize(
    ("unikernel", "can", "content", "words"),
    [
        (image("solo5"), SOLO5, volume(), "/conf: this volume cannot reach a solo5 guest .*; give it one with io.unik"),
        (image("solo5"), SOLO5, volume("/f", nature="file"), "/f: this volume cannot reach a solo5 guest"),
        (image(root="none"), LINUX, volume("/f", nature="file"), "/f: this volume cannot reach a linux guest"),
        (
            image("solo5"),
            SOLO5,
            volume(read_only=False),
            "/conf: this volume is to be written to.*; mount it with readOn",
        ),
        (image(), OTHER, volume(read_only=False), "/conf: this volume is to be written to.*volumeDevices"),
        (image(), LINUX, volume("/f", nature="file", read_only=False), "/f: this volume is a file to be written to"),
        (image(), LINUX, volume("/s", nature="other"), "/s: this volume is no file and no directory"),
        (image(), LINUX, volume("/b", nature="block"), "/b: .*; name a block device in volumeDevices"),
    ],
)
def test_a_volume_that_cannot_reach_its_guest(
    unikernel: Unikernel, can: Abilities, content: Content, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        decided(unikernel, content, can=can)


def every_pods() -> list[Content]:
    return [
        volume("/account", role=Role.ACCOUNT, in_memory=True),
        volume("/etc/hosts", role=Role.HOSTS, nature="file", read_only=False),
        volume("/etc/hostname", role=Role.HOSTNAME, nature="file", read_only=False),
        volume("/etc/resolv.conf", role=Role.NAMES, nature="file", read_only=False, in_memory=True),
    ]


def test_what_every_pod_has_refuses_none_and_makes_no_image_of_its_own() -> None:
    for guest, can in (("solo5", SOLO5), ("unikraft", OTHER)):
        found = decided(image(guest), *every_pods(), can=can)
        assert found == Storage(notes=("/account is not in the guest",))
    assert decided(image(initrd=INITRD), *every_pods()) == Storage(notes=("/account is not in the guest",))
    assert decided(image(), *every_pods()).parts == (tree("squashfs"),)


def test_what_every_pod_has_comes_along_where_an_image_is_the_pods_own() -> None:
    everything = {content.target for content in every_pods()}
    initrd = decided(image(initrd=INITRD), *every_pods(), volume()).initrd
    # Not the account: /var/run is mostly a link, and the image's own initrd is not looked into.
    assert initrd is not None and set(initrd.extra) == {*everything, "/conf"} - {"/account"}
    found = decided(image(), *every_pods(), volume())
    assert set(found.parts[0].extra) == everything - {"/account"} | {"/conf"} and not found.parts[0].in_memory
    assert found.notes == ("/account is not in the guest",)
    (root,) = decided(image(), *every_pods(), volume("/secret", in_memory=True)).parts
    assert set(root.extra) == {*everything, "/secret"} and root.in_memory


def test_an_images_volume_is_what_the_image_has_there() -> None:
    found = decided(image(), volume("/data", role=Role.IMAGE, read_only=False))
    assert found.parts == (tree("squashfs"),)
    assert found.notes == ("/data is a volume of the image: the guest has what the image has there",)


# Block devices, and a manifest's.


def test_block_devices_come_after_the_images_blocks_in_their_order() -> None:
    devices = [
        BlockDevice(path="/dev/xvda", major=7, minor=1),
        BlockDevice(path="/dev/xvdb", major=7, minor=2, read_only=True),
    ]
    blocks = (Block(path=Path("/rootfs/a.img")), Block(path=Path("/dev/xvdb"), target="/data"))
    parts = decided(image(blocks=blocks), devices=devices).parts
    assert [(part.target, part.numbers, part.read_only) for part in parts] == [
        ("/", None, True),
        ("", None, False),
        ("/data", (7, 2), True),
        ("", (7, 1), False),
    ]


def test_a_manifests_devices_are_given_out_in_order() -> None:
    blocks = (Block(path=Path("/rootfs/a"), device="two"), Block(path=Path("/rootfs/b")))
    device = BlockDevice(path="/dev/xvda", major=7, minor=1)
    parts = decided(image("solo5", devices=("one", "two", "three"), blocks=blocks), can=SOLO5, devices=[device]).parts
    assert [part.device for part in parts] == ["two", "one", "three"]


@pytest.mark.parametrize(
    ("devices", "names", "words"),
    [
        ((), ("",), r"asks for the block devices \[none\], its disks are \[a\]"),
        (("x", "y"), ("",), r"\[x, y\], its disks are \[a\]"),
        (("x",), ("y",), r"\[x\], its disks are \[y\]"),
        (("x", "y"), ("x", "x"), r"\[x, y\], its disks are \[x, x\]"),
        (("x",), (), r"\[x\], its disks are \[none\]; name a file of the image for each in io.unikernel.block"),
    ],
)
def test_a_manifest_that_does_not_match(devices: tuple[str, ...], names: tuple[str, ...], words: str) -> None:
    blocks = tuple(Block(path=Path("/rootfs/a"), device=name) for name in names)
    with pytest.raises(ImageFault, match=words):
        decided(image("solo5", devices=devices, blocks=blocks), can=SOLO5)
