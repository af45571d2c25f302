"""Every row of the decision table in shim/oci/image.py, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import ImageFault, InvalidRequest
from shim.oci.annotations import KNOWN
from shim.oci.image import Block, recognise
from shim.oci.support import monitors_of
from tests.unit.oci import elf
from tests.unit.oci.asking import ELSEWHERE, HERE, LINUX, ask, found, urunc_json
from tests.unit.oci.urunc_file import annotated
from tests.unit.oci.urunc_file import file as urunc_file


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


@pytest.mark.parametrize(
    "kernel",
    [elf.solo5(), elf.unikraft(), elf.unikraft(multiboot=True), elf.osv(), elf.hermit(), elf.bzimage()],
    ids=["Solo5", "Unikraft", "Unikraft for QEMU", "OSv", "Hermit", "Linux"],
)
def test_a_truncated_kernel_as_the_entry_point(root: Path, kernel: bytes) -> None:
    (root / "kernel").write_bytes(kernel[:-8])
    with pytest.raises(ImageFault, match=r"/kernel: .*truncated"):
        ask(root, "/kernel")


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
    (root / "data.img").write_bytes(bytes(512))
    image = found(root, "/blk.spt", block="storage=/data.img:ro")
    assert image.blocks == (Block(path=root / "data.img", device="storage", read_only=True),)
    assert found(root, "/blk.spt", block="data.img:/data").blocks == (Block(path=root / "data.img", target="/data"),)


@pytest.mark.parametrize(
    ("entry", "block", "why"),
    [
        ("/blk.spt", "disk=/data.img", r"asks for the block devices \[storage\], each .* names \[disk\]"),
        ("/blk.spt", "storage=/data.img,storage=/data.img", r"each of them once; .* \[storage, storage\]"),
        ("/hello.spt", "disk=/data.img", r"asks for the block devices \[none\]"),
        ("/vmlinuz", "disk=/data.img", "'disk' names a device, and the kernel has no manifest"),
    ],
)
def test_block_devices_that_the_manifest_does_not_name(root: Path, entry: str, block: str, why: str) -> None:
    (root / "data.img").write_bytes(bytes(512))
    with pytest.raises(InvalidRequest, match=why) as caught:
        ask(root, entry, block=block)
    assert caught.value.subject == "io.unikernel.block"


def test_a_block_device_of_the_pod(root: Path) -> None:
    wishes = {"io.unikernel.block": "storage=/dev/xvda"}
    image = recognise(root, ("/blk.spt",), wishes, ["/dev/xvda"])
    assert image is not None
    assert image.blocks == (Block(path=Path("/dev/xvda"), device="storage"),)


def test_a_block_device_that_the_pod_does_not_have(root: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev" / "sda").write_bytes(bytes(512))
    with pytest.raises(InvalidRequest, match=r"block: the pod has no block device '/dev/sda', it has \[none\]"):
        ask(root, "/blk.spt", block="storage=/dev/sda")


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
            "'xen' is not a monitor; known are spt, hvt, qemu, firecracker, cloud-hypervisor",
        ),
        ("/hello.spt", {"guest": "mewz"}, "'mewz' is not a guest; known are solo5, rumprun, .*nanos"),
        ("/hello.spt", {"guest": "osv"}, "'osv' contradicts the image: the kernel says it is solo5"),
        ("/vmlinuz", {"guest": "mirage"}, "'mirage' contradicts the image: the kernel says it is linux"),
        ("/vmlinuz", {"guest": "hermit", "monitor": "firecracker"}, "hermit guests run on qemu"),
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


def test_urunc_json(root: Path) -> None:
    (root / "redis.hvt").write_bytes(elf.rumprun(elf.HVT, machine=HERE))
    urunc_json(root, unikernelType="rumprun", hypervisor="hvt", binary="/redis.hvt", cmdline="redis-server /data/conf")
    image = found(root)
    assert (image.path, image.guest, image.monitor) == (root / "redis.hvt", "rumprun", "hvt")
    assert (image.program, image.arguments) == ("redis-server", ("/data/conf",))
    assert (image.root, image.root_target) == ("auto", "/data")
    other = found(root, "/bin/redis", "--port", "1")
    assert (other.program, other.arguments) == ("/bin/redis", ("--port", "1"))


def test_urunc_json_and_linux(root: Path) -> None:
    urunc_json(root, unikernelType="linux", hypervisor="qemu", binary="vmlinuz", initrd="/initrd")
    image = found(root, "/bin/sh", "-c", "a b", cmdline="debug")
    assert (image.guest, image.monitor, image.initrd, image.root) == ("linux", "qemu", root / "initrd", "none")
    assert (image.cmdline, image.arguments) == ("debug rdinit=/bin/sh", ("-c", "a b"))
    urunc_json(root, unikernelType="linux", binary="vmlinuz", block="/initrd")
    image = found(root, "/my init", "x")
    assert (image.cmdline, image.arguments) == ('"init=/my init"', ("x",))
    assert image.blocks == (Block(path=root / "initrd", target="/"),)


def test_urunc_annotations_in_a_sidecar(root: Path) -> None:
    said = annotated({"unikernelType": "linux", "hypervisor": "qemu", "binary": "/none"})
    assert recognise(root, ("/bin/sh",), said) is None
    assert recognise(root, ("sleep", "1"), said) is None
    with pytest.raises(ImageFault, match="/none: there is no such kernel"):
        recognise(root, ("/vmlinuz",), said)


@pytest.mark.parametrize("entry", ["/bin/sh", "redis-server"])
def test_urunc_json_names_a_missing_file(root: Path, entry: str) -> None:
    urunc_json(root, binary="/none")
    with pytest.raises(ImageFault, match="/none: there is no such kernel in the image"):
        ask(root, entry)


def test_an_urunc_annotation_wins_over_the_file(root: Path) -> None:
    urunc_json(root, unikernelType="linux", hypervisor="qemu", binary="vmlinuz")
    image = recognise(root, ("/bin/sh",), annotated({"hypervisor": "firecracker"}))
    assert image is not None
    assert image.monitor == "firecracker"


def test_what_urunc_says_and_the_kernel_does_not(root: Path) -> None:
    urunc_json(root, unikernelType="unikraft", hypervisor="spt", binary="hello.spt")
    with pytest.raises(
        InvalidRequest, match=r"urunc\.json: com\.urunc\.unikernel\.hypervisor: .* unikraft guests run on"
    ):
        ask(root, "/bin/sh")
    urunc_json(root, unikernelType="unikraft", binary="hello.spt")
    with pytest.raises(InvalidRequest, match=r"urunc\.json: .*unikernelType: 'unikraft' contradicts .* it is solo5"):
        ask(root, "/bin/sh")


@pytest.mark.parametrize("name", ["node.nabla", "/node.nabla"])
def test_a_nabla_entry_point(root: Path, name: str) -> None:
    (root / "node.nabla").write_bytes(elf.solo5(nets=[b"tap"], blocks=[b"rootfs"], machine=HERE))
    image = found(root, name, "/app.js")
    assert (image.guest, image.monitor) == ("rumprun", "spt")
    assert (image.program, image.arguments) == (name, ("/app.js",))
    assert found(root, "/bin/sh", kernel=name).guest == "rumprun"
    assert found(root, name, guest="solo5").guest == "solo5"


@pytest.mark.parametrize("data", [elf.image(machine=HERE), b"#!/bin/sh\n", LINUX], ids=["ELF", "script", "Linux"])
def test_a_nabla_kernel_of_before_the_notes(root: Path, data: bytes) -> None:
    (root / "node.nabla").write_bytes(data)
    for wishes in ({}, {"kernel": "/node.nabla"}):
        with pytest.raises(
            ImageFault, match=r"node\.nabla: the Nabla kernel has no notes of Solo5's: .*older than Solo5 0\.6"
        ):
            ask(root, "/node.nabla", **wishes)


def test_a_nabla_kernel_that_is_missing(root: Path) -> None:
    with pytest.raises(ImageFault, match=r"/node\.nabla: there is no such kernel"):
        ask(root, "/node.nabla")


def test_rumprun_by_its_sections(root: Path) -> None:
    (root / "redis").write_bytes(elf.rumprun(machine=HERE))
    assert found(root, "/redis").guest == "rumprun"
    assert found(root, "/redis", guest="mirage").guest == "mirage"


@pytest.mark.parametrize("guest", ["solo5", "rumprun", "mirage"])
def test_guests_on_solo5(root: Path, guest: str) -> None:
    image = found(root, "/hello.hvt", guest=guest)
    assert (image.guest, image.monitor) == (guest, "hvt")


@pytest.mark.parametrize(("guest", "kernel"), [("unikraft", elf.unikraft(HERE)), ("osv", elf.osv(HERE))])
def test_other_families_by_their_headers(root: Path, guest: str, kernel: bytes) -> None:
    (root / "kernel").write_bytes(kernel)
    image = found(root, "/kernel", "a")
    assert (image.guest, image.monitor, image.arguments) == (guest, "qemu", ("a",))
    assert image.kind == ("q35" if HERE == elf.X86_64 else "")
    assert found(root, "/kernel", "a", machine="microvm").kind == "microvm"
    with pytest.raises(InvalidRequest, match=f"'nanos' contradicts the image: the kernel says it is {guest}"):
        ask(root, "/kernel", guest="nanos")


def test_firecracker_has_one_machine(root: Path) -> None:
    (root / "kernel").write_bytes(elf.osv(HERE))
    assert found(root, "/kernel", "a", monitor="firecracker").kind == ""


@pytest.mark.parametrize("guest", ["unikraft", "osv", "nanos"])
def test_kernels_whose_headers_do_not_say_who_they_are(root: Path, guest: str) -> None:
    (root / "kernel").write_bytes(b"\1" * 64)
    assert found(root, "/bin/sh", kernel="/kernel", guest=guest).guest == guest
    assert found(root, "/vmlinuz", guest=guest).guest == guest
    for wishes in ({}, {"guest": "linux"}, {"guest": "solo5"}):
        with pytest.raises(ImageFault, match=r"/kernel: the file is no kernel .*io\.unikernel\.guest says what"):
            ask(root, kernel="/kernel", **wishes)


@pytest.mark.parametrize("loader", [elf.image(machine=HERE), LINUX], ids=["ELF", "PVH"])
def test_a_hermit_program_and_its_loader(root: Path, loader: bytes) -> None:
    (root / "loader").write_bytes(loader)
    (root / "app").write_bytes(elf.hermit(machine=HERE))
    image = found(root, "/app", "a", kernel="/loader")
    assert (image.path, image.initrd) == (root / "loader", root / "app")
    assert (image.guest, image.monitor, image.arguments) == ("hermit", "qemu", ("a",))
    assert found(root, "a", kernel="/loader", guest="hermit", initrd="/app").initrd == root / "app"


def test_a_hermit_program_that_cannot_run(root: Path) -> None:
    (root / "loader").write_bytes(elf.image(machine=HERE))
    (root / "app").write_bytes(elf.hermit(ELSEWHERE))
    with pytest.raises(ImageFault, match=r"/app: the kernel is built for .*, this node is"):
        ask(root, "/app", kernel="/loader")
    (root / "app").write_bytes(elf.hermit(HERE)[:-8])
    with pytest.raises(ImageFault, match=r"/app: a truncated or broken ELF file"):
        ask(root, "/app", kernel="/loader")


def test_hermits_loader_without_a_program(root: Path) -> None:
    (root / "loader").write_bytes(elf.image(machine=HERE))
    with pytest.raises(ImageFault, match=r"/loader: nothing says which program .*io\.unikernel\.initrd"):
        ask(root, "/bin/sh", kernel="/loader", guest="hermit")


@pytest.mark.parametrize("wishes", [{}, {"kernel": "/app"}, {"guest": "hermit"}])
def test_a_hermit_program_without_its_loader(root: Path, wishes: dict[str, str]) -> None:
    (root / "app").write_bytes(elf.hermit(machine=HERE))
    with pytest.raises(
        ImageFault, match=r"/app: a Hermit program is started by Hermit's loader; .*io\.unikernel\.kernel"
    ):
        ask(root, "/app", **wishes)


def test_what_is_said_of_root_version_and_machine(root: Path) -> None:
    image = recognise(
        root,
        ("/vmlinuz",),
        {"io.unikernel.root": "squashfs", "io.unikernel.version": "6.1", "io.unikernel.machine": "q35"},
    )
    assert image is not None
    assert (image.root, image.version, image.kind) == ("squashfs", "6.1", "q35")


_NAMES = st.sampled_from(
    ["/vmlinuz", "hello.spt", "/cut", "/cut.spt", "/none", "/bin/sh", "sh", "/bin", "../x", "", "/\0", "x" * 300]
)
_WORDS = st.sampled_from(["linux", "mirage", "qemu", "spt", "auto", "none", "64", "a=/x:ro"])
_SAID = _NAMES | _WORDS | st.text(max_size=8)
_OURS = st.dictionaries(st.sampled_from([f"io.unikernel.{name}" for name in KNOWN]), _SAID, max_size=4)
_URUNC = st.dictionaries(
    st.sampled_from(["binary", "unikernelType", "hypervisor", "initrd", "block", "cmdline"]), _SAID, max_size=4
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arguments=st.lists(_NAMES, max_size=2),
    ours=_OURS,
    urunc=_URUNC,
    file=st.none() | _URUNC | st.binary(max_size=20),
)
def test_whatever_is_said_the_answer_is_an_image_or_words(
    root: Path, arguments: list[str], ours: dict[str, str], urunc: dict[str, str], file: dict[str, str] | bytes | None
) -> None:
    path = root / "urunc.json"
    path.unlink(missing_ok=True)
    if file is not None:
        path.write_bytes(file if isinstance(file, bytes) else urunc_file(file))
    try:
        image = recognise(root, tuple(arguments), {**ours, **annotated(urunc)})
    except (ImageFault, InvalidRequest) as error:
        assert error.subject
        return
    if image is not None:
        assert image.monitor in monitors_of(image.guest)
        assert all(each is None or each.is_relative_to(root) for each in (image.path, image.initrd))
