"""What a kernel file says of itself, in its headers; nobody needs to be asked.

Solo5's ELF notes name the tender and the devices (Solo5, include/elf_abi.h and mft_abi.h), Linux's boot header and
PVH note name Linux (Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, Xen's elfnote.h).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from shim.errors import ImageFault

_ABI1, _MFT1 = 0x31494241, 0x3154464D
_TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}
# struct mft_entry on 64-bit machines: name, type, a union of 16 bytes, a pointer, a bool padded to 8.
_ENTRY, _NAME = 104, 68
_BLOCK, _NET = 1, 2
_ENTRIES = 64
_PVH = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine (elf.h)
_HEAD = 0x264 + 4  # bytes that hold every fixed header read below
_PROTOCOL = 0x020C  # since when the header tells where a 64-bit kernel starts
_AGAIN = "build the image again"
# Bounds on what a hostile file can make us read: a linker writes about ten segments, and the longest note is Solo5's
# manifest, 6664 bytes.
_SEGMENT_LIMIT = 128
_NOTES_LIMIT = 1 << 16


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel's headers. `machine` is as uname(2) says it; `tender` is Solo5's target and `abi` its version; the
    device tuples, in the manifest's order, are None where there is no manifest."""

    family: Literal["solo5", "linux"]
    machine: str
    tender: str = ""
    abi: int = 0
    net_devices: tuple[str, ...] | None = None
    block_devices: tuple[str, ...] | None = None


def read(path: Path, name: str) -> Kernel | None:
    """The kernel in the file at `path`, None when it is no kernel; blocks. `name` is what errors call it.

    Raises ImageFault for a file that begins like one and is broken.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if head[:4] == b"\x7fELF":
                return _elf(file, name)
            if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
                return _bzimage(head, file.seek(0, os.SEEK_END), name)
    except OSError as error:
        raise ImageFault(f"the file cannot be read: {error.strerror}", subject=name) from error
    if len(head) >= 0x40 and head[0x38:0x3C] == b"ARMd":
        return Kernel(family="linux", machine="aarch64")
    return None


def _bzimage(head: bytes, size: int, name: str) -> Kernel:
    """A Linux kernel by its boot header: setup_sects at 0x1f1, syssize (in 16 bytes) at 0x1f4, version at 0x206."""
    if len(head) < _HEAD:
        raise ImageFault("the Linux kernel ends inside its header", subject=name, remedy=_AGAIN)
    sectors, paragraphs = head[0x1F1] or 4, int.from_bytes(head[0x1F4:0x1F8], "little")
    whole = (sectors + 1) * 512 + paragraphs * 16
    if size < whole:
        raise ImageFault(f"the Linux kernel is truncated: {size} bytes of {whole}", subject=name, remedy=_AGAIN)
    version = int.from_bytes(head[0x206:0x208], "little")
    if version < _PROTOCOL:
        raise ImageFault(
            f"the Linux kernel speaks boot protocol {version >> 8}.{version & 0xFF:02}, too old for its monitor",
            subject=name,
            remedy="use Linux 3.8 or newer",
        )
    return Kernel(family="linux", machine="x86_64")


def says_solo5(path: Path) -> bool:
    """Whether a file that `read` calls broken was meant for Solo5: its bindings name an interpreter that cannot be
    (include/elf_abi.h), near the file's start. Blocks; raises OSError."""
    with path.open("rb") as file:
        return b"/nonexistent/solo5/" in file.read(1 << 16)


def check_elf_machine(path: Path, name: str) -> None:
    """Raise ImageFault when an ELF file, whatever else is in it, is for another machine than this node; blocks.

    Said first of a file that was named as the kernel: a kernel for another machine may be no kernel known here.
    """
    with path.open("rb") as file:
        if file.read(4) == b"\x7fELF" and (number := _machine(file)):
            _require(_MACHINES.get(number, f"another machine (ELF e_machine {number})"), name)


def check_machine(kernel: Kernel, name: str) -> None:
    """Raise ImageFault when the kernel is for another machine than this node."""
    _require(kernel.machine, name)


def _require(machine: str, name: str) -> None:
    node = os.uname().machine
    if machine != node:
        raise ImageFault(
            f"the kernel is built for {machine}, this node is {node}",
            subject=name,
            remedy="use an image for this architecture",
        )


def _elf(file: BinaryIO, name: str) -> Kernel | None:
    try:
        return _elf_kernel(file)
    except OSError:
        raise
    except Exception as error:
        # pyelftools meets a hostile file with nearly any of Python's own errors.
        why = str(error) if isinstance(error, ELFError | ValueError) else f"{type(error).__name__}: {error}"
        raise ImageFault(f"a truncated or broken ELF file ({why})", subject=name, remedy=_AGAIN) from error


def _elf_kernel(file: BinaryIO) -> Kernel | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    elf = ELFFile(file)
    machine = _MACHINES.get(_machine(file), str(elf.header["e_machine"]))
    if elf.header["e_phnum"] > _SEGMENT_LIMIT:
        raise ValueError(f"it has {elf.header['e_phnum']} segments")
    target: tuple[str, int] | None = None
    manifest: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    pvh = False
    headers = [
        struct_parse(elf.structs.Elf_Phdr, file, elf.header["e_phoff"] + number * elf.header["e_phentsize"])
        for number in range(elf.header["e_phnum"])
    ]
    if any(header["p_filesz"] and header["p_offset"] + header["p_filesz"] > size for header in headers):
        raise ValueError(f"its segments reach beyond its {size} bytes")
    for header in headers:
        if header["p_type"] != "PT_NOTE" or header["p_filesz"] > _NOTES_LIMIT:
            continue
        file.seek(header["p_offset"])
        for owner, kind, description in _notes(file.read(header["p_filesz"]), elf.little_endian):
            if (owner, kind) == (b"Solo5", _ABI1):
                target = _target(description)
            elif (owner, kind) == (b"Solo5", _MFT1):
                manifest = _manifest(description)
            elif (owner, kind) == (b"Xen", _PVH):
                pvh = True
    if target is not None:
        return Kernel(
            family="solo5",
            machine=machine,
            tender=target[0],
            abi=target[1],
            net_devices=manifest[0],
            block_devices=manifest[1],
        )
    return Kernel(family="linux", machine=machine) if pvh else None


def _notes(data: bytes, little: bool) -> Iterator[tuple[bytes, int, bytes]]:
    """Owner, type and description of each note (elf(5), Nhdr): all padded to 4 bytes, whatever the segment says."""
    at = 0
    while at + 12 <= len(data):
        owner_size, size, kind = struct.unpack_from("<III" if little else ">III", data, at)
        owner_end = at + 12 + owner_size
        start = at + 12 + (owner_size + 3 & ~3)
        if start + size > len(data):
            raise ValueError("a note reaches beyond its segment")
        yield data[at + 12 : owner_end].rstrip(b"\0"), kind, data[start : start + size]
        at = start + (size + 3 & ~3)


def _machine(file: BinaryIO) -> int:
    file.seek(18)
    return int.from_bytes(file.read(2), "little")


def _target(description: bytes) -> tuple[str, int]:
    """struct abi1_info: the target and its version."""
    number, version = struct.unpack_from("<II", description)
    if number not in _TARGETS:
        raise ValueError(f"unknown Solo5 target {number}")
    return _TARGETS[number], version


def _manifest(description: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Network and block device names of struct mft, in its order."""
    # The structure is aligned to 8 bytes and its note's header has 20, so 4 bytes of padding come first.
    start = 4 if len(description) % 8 == 4 else 0
    version, entries = struct.unpack_from("<II", description, start)
    if version != 1 or entries > _ENTRIES:
        raise ValueError(f"a Solo5 manifest of version {version} with {entries} entries")
    found: dict[int, list[str]] = {_NET: [], _BLOCK: []}
    for position in range(entries):
        raw, kind = struct.unpack_from(f"<{_NAME}sI", description, start + 8 + position * _ENTRY)
        if kind not in found:
            continue
        device = raw.partition(b"\0")[0].decode("ascii")
        # As strict as the tender's own option (tenders/spt/spt_module_net.c), which the name becomes part of.
        if not re.fullmatch(r"[A-Za-z0-9]{1,67}", device):
            raise ValueError(f"a Solo5 device named {device!r}")
        found[kind].append(device)
    return tuple(found[_NET]), tuple(found[_BLOCK])
