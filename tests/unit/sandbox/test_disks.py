"""Making a guest's storage, with images that are made of nothing: what is shown to the monitor, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import InvalidRequest, NodeFault
from shim.guests.base import Dns
from shim.oci import rewrite
from shim.oci.image import Block, Unikernel
from shim.oci.kernel import Kernel
from shim.oci.rootfs import Mount, unchanged_layers
from shim.sandbox import disks
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord
from shim.sandbox.volumes import RootFileSystem
from shim.storage.images import Image
from shim.storage.source import Source
from tests.unit.sandbox.fakes import FakeJournal, fake_node


class FakeImages:
    """Images whose content says what they were made of. `full` makes every build fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.full = False

    async def build(self, source: Source, format: str, *, extra: Mapping[str, Path] = {}, writable: int = 0) -> Image:
        if self.full:
            raise NodeFault("no space left", subject=str(self.directory))
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{source.directory.name}.{format}"
        path.write_text(f"{format} {','.join(sorted(extra))} {writable}")
        return Image(path, format, "0")

    async def copy(self, image: Path, target: Path) -> None:
        target.write_bytes(image.read_bytes())


class Ground:
    """A node, a container's record, and its root file system with a kernel, an initrd and a file to be a disk."""

    def __init__(self, directory: Path, *, writes_disks: bool = False, shares: bool = True) -> None:
        self.root = directory / "rootfs"
        self.root.mkdir()
        for name in ("kernel", "initrd", "data.img"):
            (self.root / name).write_text(name)
        self.node = fake_node(directory / "run")
        self.images = FakeImages(directory / "storage" / "images")
        self.node.images = self.images
        self.node.images_in = FakeImages
        self.node.disks_dir = lambda namespace, container: directory / "storage" / f"{namespace}@{container}"
        guest = SimpleNamespace(roots=("squashfs", "ext4", "cpio", "9p"), mounts=("squashfs", "9p"))
        monitor = SimpleNamespace(name="m", shares_directories=shares, writes_disks=writes_disks)
        self.node.guests, self.node.monitors = {"linux": guest}, {"m": monitor}
        self.record = ContainerRecord(namespace="n", container="c", sandbox="s", bundle=directory)
        self.own = self.node.container_dir("n", "c")
        self.own.mkdir(parents=True)

    def provide(self, spec: dict[str, Any] | None = None, **fields: Any) -> disks.Provided:
        kernel = Kernel(family="linux", machine="x86_64")
        image = Unikernel(path=self.root / "kernel", kernel=kernel, guest="linux", monitor="m", **fields)
        root = RootFileSystem(directory=self.root)
        return asyncio.run(disks.provide(cast(Node, self.node), self.record, spec or {}, image, root))


def volumes(*mounts: tuple[str, Path, str]) -> dict[str, Any]:
    return {
        "mounts": [
            {"destination": target, "source": str(source), "type": "bind", "options": ["rbind", mode]}
            for target, source, mode in mounts
        ]
    }


def shown(found: disks.Provided) -> dict[str, tuple[Path, bool]]:
    return {str(each.target): (each.source, each.writable) for each in found.files.more}


def test_nothing_is_made_where_nothing_is_wanted(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    found = ground.provide(initrd=ground.root / "initrd")
    files = rewrite.Files(kernel=ground.root / "kernel", initrd=ground.root / "initrd")
    assert found == disks.Provided(files=files)
    assert ground.record.disks is None and not (tmp_path / "storage").exists() and not list(ground.own.iterdir())


def test_a_kernel_alone_makes_no_root(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    for name in ("initrd", "data.img"):
        (ground.root / name).unlink()
    (ground.root / "etc").mkdir()
    (ground.root / "unikernel.json").touch()
    assert ground.provide().disks == ()
    (ground.root / "etc" / "motd").symlink_to("nowhere")
    assert len(ground.provide().disks) == 1


def test_an_image_whose_guest_takes_no_root_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "is_bare", lambda directory, image: pytest.fail("it may be large"))
    ground = Ground(tmp_path)
    assert ground.provide(initrd=ground.root / "initrd").disks == ()
    ground.node.guests["linux"].roots = ()
    assert ground.provide().disks == ()


def test_a_root_that_is_only_read_is_the_caches(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    found = ground.provide()
    assert shown(found) == {"/unikernel/disk0": (ground.images.directory / "rootfs.squashfs", False)}
    assert [(disk.path, disk.read_only) for disk in found.disks] == [(Path("/unikernel/disk0"), True)]
    assert [(volume.target, volume.format, volume.disk) for volume in found.volumes] == [("/", "squashfs", 0)]
    assert ground.record.disks is None


@pytest.mark.parametrize(("writes_disks", "root"), [(False, "ext4"), (True, "squashfs")])
def test_what_can_be_written_to_is_a_copy_that_is_in_the_journal_first(
    writes_disks: bool, root: str, tmp_path: Path
) -> None:
    ground = Ground(tmp_path, writes_disks=writes_disks)
    found = ground.provide(root=root)
    own = tmp_path / "storage" / "n@c"
    assert shown(found) == {"/unikernel/disk0": (own / "0", True)}
    assert ground.node.journal.kept["n@c"].disks == own == ground.record.disks
    assert (own / "0").read_text().split() == [root, "1024" if root == "ext4" else "0"]
    assert (own / "0").stat().st_mode & 0o777 == 0o600
    disks.remove(own)
    assert not own.exists()
    disks.remove(own)


def test_a_file_of_the_image(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    path = ground.root / "data.img"
    found = ground.provide(root="none", blocks=(Block(path=path, target="/a", read_only=True), Block(path=path)))
    assert shown(found) == {
        "/unikernel/disk0": (path, False),
        "/unikernel/disk1": (tmp_path / "storage" / "n@c" / "1", True),
    }
    assert [(volume.target, volume.read_only) for volume in found.volumes] == [("/a", True), ("", False)]


def test_an_initrd_with_volumes_in_it(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    (tmp_path / "conf").mkdir()
    found = ground.provide(volumes(("/conf", tmp_path / "conf", "ro")), initrd=ground.root / "initrd")
    initrd = ground.own / "initrd"
    assert found.files.initrd == initrd
    # The kernel wants each archive at a multiple of four.
    assert initrd.read_bytes() == b"initrd\0\0cpio /conf 0"


def test_an_initrd_that_is_the_root(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    found = ground.provide(root="cpio")
    assert found.files.initrd == ground.images.directory / "rootfs.cpio"
    assert [(volume.target, volume.format, volume.disk) for volume in found.volumes] == [("/", "cpio", None)]


def test_a_device_of_the_pods(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.record.user = 1000
    linux = {
        "devices": [{"path": "/dev/xvda", "type": "b", "major": 7, "minor": 3}],
        "resources": {"devices": [{"allow": True, "type": "b", "major": 7, "minor": 3, "access": "rwm"}]},
    }
    found = ground.provide({"linux": linux}, root="none")
    assert found.devices == (rewrite.Device(Path("/dev/disk0"), 7, 3, "b", "rw", 1000),)
    assert [(disk.path, disk.read_only) for disk in found.disks] == [(Path("/dev/disk0"), False)]
    linux["resources"]["devices"][0]["access"] = "r"  # type: ignore[index]
    (device,) = ground.provide({"linux": linux}, root="none").devices
    assert device.access == "r"
    ground.node.monitors["m"].writes_disks = True
    with pytest.raises(InvalidRequest, match="opens its disks for writing, and this one is read-only"):
        ground.provide({"linux": linux}, root="none")


def test_shared_directories(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    (tmp_path / "data").mkdir()
    found = ground.provide(volumes(("/data", tmp_path / "data", "rw")), root="9p")
    assert shown(found) == {
        "/unikernel/share0": (ground.root, True),
        "/unikernel/share1": (tmp_path / "data", True),
    }
    assert [(volume.target, volume.device, volume.disk) for volume in found.volumes] == [
        ("/", "share0", None),
        ("/data", "share1", None),
    ]


def test_what_comes_from_memory_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = Ground(tmp_path)
    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(disks, "_memory_file_systems", lambda text: frozenset((tmp_path.stat().st_dev,)))
    found = ground.provide(volumes(("/secret", tmp_path / "secret", "ro")), root="ext4")
    source, writable = shown(found)["/unikernel/disk0"]
    assert source.is_relative_to(ground.own) and writable
    assert not (tmp_path / "storage").exists()


def test_file_systems_in_memory() -> None:
    mountinfo = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "30 22 0:45 / /run rw,nosuid - tmpfs tmpfs rw,size=1k\n"
        "31 22 0:46 / /with\\040space rw master:1 shared:2 - ramfs none rw\n"
    )
    assert disks._memory_file_systems(mountinfo) == {45, 46}


def test_name_servers_are_the_pods(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    (tmp_path / "resolv.conf").write_text("search a.example\nnameserver 192.0.2.1\noptions ndots:5\n")
    found = ground.provide(volumes(("/etc/resolv.conf", tmp_path / "resolv.conf", "rw")), root="none")
    assert found.dns == Dns(servers=("192.0.2.1",), searches=("a.example",), options=("ndots:5",))


def test_a_volume_whose_source_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"^/conf: the volume's source cannot be used: No such file.*/none\)"):
        Ground(tmp_path).provide(volumes(("/conf", tmp_path / "none", "ro")))


def test_a_journal_that_cannot_be_written_keeps_anything_from_being_made(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    cast(FakeJournal, ground.node.journal).full = True
    with pytest.raises(NodeFault, match="the journal cannot be written"):
        ground.provide(root="ext4")
    assert not (tmp_path / "storage").exists()


def test_disks_from_before_a_restart_of_the_machine_are_removed(tmp_path: Path) -> None:
    now = disks.of_boot(tmp_path)
    (now / "n@c").mkdir(parents=True)
    (now.parent / "another-boot" / "n@c").mkdir(parents=True)
    disks.sweep(tmp_path)
    assert list(now.parent.iterdir()) == [now] and (now / "n@c").exists()
    disks.sweep(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("kind", "options", "layers"),
    [
        ("overlay", ("lowerdir=/a:/b", "upperdir={empty}", "workdir=/w"), ("/a", "/b")),
        ("overlay", ("lowerdir=/a:/b",), ("/a", "/b")),
        ("overlay", ("lowerdir=/a", "upperdir={full}", "workdir=/w"), ()),
        ("overlay", ("lowerdir=/a", "upperdir={missing}", "workdir=/w"), ()),
        ("overlay", ("lowerdir=/a\\:b", "upperdir={empty}"), ()),
        ("bind", ("rbind", "ro"), ()),
    ],
)
def test_the_layers_of_a_root_that_nobody_has_changed(
    kind: str, options: tuple[str, ...], layers: tuple[str, ...], tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("empty", "full", "missing")}
    places["empty"].mkdir()
    (places["full"] / "x").mkdir(parents=True)
    given = Mount(type=kind, source="overlay", options=tuple(option.format(**places) for option in options))
    assert unchanged_layers((given,)) == tuple(map(Path, layers))
    assert unchanged_layers(()) == () == unchanged_layers((given, given))


def test_a_resolv_conf_that_is_none(tmp_path: Path) -> None:
    """A container of the pod may have written it."""
    ground, path = Ground(tmp_path), tmp_path / "resolv.conf"
    path.write_bytes(b"nameserver 192.0.2.1\n".ljust((1 << 16) + 1))
    with pytest.raises(InvalidRequest, match=r"/etc/resolv\.conf: is no file of at most 65536 bytes"):
        ground.provide(volumes(("/etc/resolv.conf", path, "ro")), initrd=ground.root / "initrd")
    path.write_bytes(b"nameserver 192.0.2.1\n".ljust(1 << 16))
    found = ground.provide(volumes(("/etc/resolv.conf", path, "ro")), initrd=ground.root / "initrd")
    assert found.dns.servers == ("192.0.2.1",)
