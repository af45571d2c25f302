"""What kernel files say of themselves, and that no file makes the reader fail in another way than by ImageFault."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import ImageFault
from shim.oci import kernel
from tests.unit.oci import elf


def read(tmp_path: Path, data: bytes) -> kernel.Kernel | None:
    path = tmp_path / "kernel"
    path.write_bytes(data)
    return kernel.read(path, "/kernel")


def test_a_solo5_kernel_names_its_tender_and_devices(tmp_path: Path) -> None:
    found = read(tmp_path, elf.solo5(elf.HVT, nets=[b"service0", b"service1"], blocks=[b"storage"]))
    assert found == kernel.Kernel(
        family="solo5",
        machine="x86_64",
        tender="hvt",
        abi=2,
        net_devices=("service0", "service1"),
        block_devices=("storage",),
    )


def test_a_solo5_kernel_without_devices(tmp_path: Path) -> None:
    found = read(tmp_path, elf.solo5())
    assert found is not None
    assert (found.tender, found.net_devices, found.block_devices) == ("spt", (), ())


@pytest.mark.parametrize(
    ("data", "machine"),
    [
        (elf.bzimage(), "x86_64"),
        (elf.arm64(), "aarch64"),
        (elf.image([elf.pvh()]), "x86_64"),
    ],
    ids=["bzImage", "arm64", "PVH"],
)
def test_linux_kernels(tmp_path: Path, data: bytes, machine: str) -> None:
    found = read(tmp_path, data)
    assert found is not None
    assert (found.family, found.machine, found.net_devices) == ("linux", machine, None)


@pytest.mark.parametrize(
    ("data", "family", "guest"),
    [
        (elf.rumprun(), "solo5", "rumprun"),
        (elf.unikraft(), "unikraft", ""),
        (elf.unikraft(multiboot=True), "unikraft", ""),
        (elf.hermit(), "hermit", ""),
        (elf.osv(), "osv", ""),
        (elf.osv(xen=False), "osv", ""),
    ],
    ids=["rumprun", "Unikraft", "Unikraft for QEMU", "Hermit", "OSv", "OSv without Xen"],
)
def test_families_that_say_so(tmp_path: Path, data: bytes, family: str, guest: str) -> None:
    found = read(tmp_path, data)
    assert found is not None
    assert (found.family, found.guest, found.machine) == (family, guest, "x86_64")


@pytest.mark.parametrize(
    "data",
    [
        elf.image([elf.note(b"HERMIT", 0x5A00, b"\4")]),
        elf.image([elf.note(b"HERMIT", 1, b"\4")], os_abi=255),
        elf.image([elf.note(b"Xen", 6, b"NetBSD\0")]),
        elf.image(sections=[".text", ".uk_bootinfo2", ".ukernel"]),
        elf.image(sections=["link_set_rump_components"]),
        elf.image(sections=[".text"] * 1100),
    ],
    ids=["Hermit's note for Linux", "another note of Hermit's", "another guest of Xen's", "sections", "rump", "many"],
)
def test_families_that_nearly_say_so(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


@pytest.mark.parametrize(
    ("notes", "more", "family"),
    [
        ([elf.abi(), elf.note(b"HERMIT", 0x5A00, b"\4")], {"os_abi": 255}, "solo5"),
        ([elf.note(b"Xen", elf.GUEST_OS, b"osv\0"), elf.note(b"HERMIT", 0x5A00, b"\4")], {"os_abi": 255}, "hermit"),
        ([elf.note(b"Xen", elf.GUEST_OS, b"osv\0")], {"sections": [".uk_bootinfo"]}, "osv"),
        ([elf.pvh()], {"sections": [".uk_bootinfo"]}, "unikraft"),
    ],
)
def test_the_marks_of_two_families(tmp_path: Path, notes: list[bytes], more: dict[str, Any], family: str) -> None:
    """The order of the rows in docs/guests.md."""
    found = read(tmp_path, elf.image(notes, **more))
    assert found is not None and found.family == family


def test_a_truncated_unikraft_kernel(tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="its table of sections reaches beyond its"):
        read(tmp_path, elf.unikraft()[:-1])


@pytest.mark.parametrize(
    "data",
    [b"", b"#!/bin/sh\n", b"\x7fEL", elf.program(), bytes(4096)],
    ids=["empty", "script", "short", "program", "0"],
)
def test_other_files_are_no_kernels(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (elf.image([elf.abi(99)]), "unknown Solo5 target 99"),
        (elf.image([elf.abi(), elf.manifest(version=7)]), "version 7"),
        (elf.image([elf.abi(), elf.manifest(count=65)]), "65 entries"),
        (elf.image([elf.abi(), elf.manifest(count=9)]), "broken ELF"),
        (elf.image([elf.abi(), elf.manifest([(b"a=@9", elf.NET)])]), "device named 'a=@9'"),
        (elf.image([elf.abi(), elf.manifest([(b"", elf.NET)])]), "device named ''"),
        (elf.image([elf.abi(), elf.manifest([(b"\xff", elf.NET)])]), "ascii"),
        (elf.image([elf.note(b"Solo5", elf.ABI1, b"\2\0\0\0")]), "broken ELF"),
        (elf.image([elf.abi()[:-4]]), "beyond its segment"),
        (elf.image([elf.abi()], segments=200), "segments"),
        (elf.bzimage(version=0x0200), "boot protocol 2.00"),
        (elf.bzimage()[:0x240], "ends inside its header"),
        (elf.bzimage()[:-1], "truncated: 1151 bytes of 1152"),
    ],
)
def test_broken_kernels_say_what_is_wrong(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(ImageFault, match=why) as caught:
        read(tmp_path, data)
    assert caught.value.subject == "/kernel"


_WHOLE = {
    "solo5": elf.solo5(nets=[b"service0"]),
    "rumprun": elf.rumprun(),
    "unikraft": elf.unikraft(multiboot=True),
    "hermit": elf.hermit(),
    "osv": elf.osv(xen=False),
    "bzImage": elf.bzimage(),
}


@pytest.mark.parametrize("whole", _WHOLE.values(), ids=_WHOLE.keys())
def test_every_truncation_is_refused_or_no_kernel(tmp_path: Path, whole: bytes) -> None:
    assert read(tmp_path, whole) is not None
    for length in range(len(whole)):
        try:
            found = read(tmp_path, whole[:length])
        except ImageFault:
            continue
        # Only before the magic number is complete can it be taken for something else.
        assert found is None
        assert length < 0x206


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.sampled_from([elf.program(), elf.arm64(), *_WHOLE.values()]),
    changes=st.lists(
        st.tuples(st.integers(0, 1200), st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff" * 8))), max_size=8
    ),
    length=st.none() | st.integers(0, 1200),
)
def test_only_image_fault_escapes(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, bytes]], length: int | None
) -> None:
    data = bytearray(whole)
    for at, bits in changes:
        data[at : at + len(bits)] = bits
    try:
        read(tmp_path, bytes(data[:length]))
    except ImageFault as error:
        assert str(error).startswith("/kernel: ")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.tuples(*(st.integers(0, 2**bits - 1) for bits in (16, 16, 32, 64, 64, 64, 32, *(16,) * 6))))
def test_hostile_elf_headers(tmp_path: Path, header: tuple[int, ...]) -> None:
    data = b"\x7fELF\2\1\1\xff" + bytes(8) + struct.pack("<HHIQQQIHHHHHH", *header) + elf.unikraft()[64:]
    try:
        read(tmp_path, data)
    except ImageFault as error:
        assert str(error).startswith("/kernel: ")


def test_a_hostile_file_is_read_in_no_time(tmp_path: Path) -> None:
    """A sparse file of 1 TiB with as many sections, segments and notes as its header can claim."""
    path = tmp_path / "kernel"
    path.write_bytes(b"\x7fELF\2\1\1\0" + bytes(8) + struct.pack("<HHIQQQIHHHHHH", *_CLAIMS))
    os.truncate(path, 1 << 40)
    begun = time.monotonic()
    with pytest.raises(ImageFault, match="65535 segments"):
        kernel.read(path, "/kernel")
    assert time.monotonic() - begun < 1


def test_notes_without_end_are_read_in_no_time(tmp_path: Path) -> None:
    """As many segments as there may be, each the same 64 KiB of empty notes."""
    notes = bytes(1 << 16)
    count, at = 128, 64 + 56 * 128
    segments = struct.pack("<IIQQQQQQ", 4, 4, at, at, at, len(notes), len(notes), 4) * count
    header = struct.pack("<HHIQQQIHHHHHH", 2, elf.X86_64, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    begun = time.monotonic()
    assert read(tmp_path, b"\x7fELF\2\1\1\0" + bytes(8) + header + segments + notes) is None
    assert time.monotonic() - begun < 1


# e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize and e_phnum, and for sections.
_CLAIMS = (2, elf.X86_64, 1, 0, 64, 64, 0, 64, 56, 65535, 64, 65535, 1)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=512))
def test_noise_behind_the_magic(tmp_path: Path, tail: bytes) -> None:
    for data in (b"\x7fELF" + tail, b"\x7fELF\2\1\1" + bytes(9) + tail):
        try:
            read(tmp_path, data)
        except ImageFault:
            continue


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="cannot be read"):
        kernel.read(tmp_path / "none", "/kernel")


def test_another_machine() -> None:
    node = os.uname().machine
    kernel.check_machine(kernel.Kernel(family="linux", machine=node), "/kernel")
    with pytest.raises(ImageFault, match=f"built for riscv64, this node is {node}"):
        kernel.check_machine(kernel.Kernel(family="linux", machine="riscv64"), "/kernel")
