"""What a kernel file says of itself, in its headers; nobody needs to be asked.

Solo5's ELF notes name the tender and the devices (Solo5, include/elf_abi.h and mft_abi.h), Linux's boot header and
PVH note name Linux (Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, Xen's elfnote.h).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

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
_NOTE_LIMIT = 1 << 20


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel's headers. `tender` is Solo5's target; the device tuples are None where there is no manifest."""

    family: Literal["solo5", "linux"]
    machine: str
    tender: str = ""
    net_devices: tuple[str, ...] | None = None
    block_devices: tuple[str, ...] | None = None


def read(path: Path, name: str) -> Kernel | None:
    """The kernel in the file at `path`, None when it is no kernel; blocks. `name` is what errors call it.

    Raises ImageFault for a file that begins like one and is broken.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head[:4] == b"\x7fELF":
            return _elf(file, name)
    if len(head) > 0x206 and head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        return Kernel(family="linux", machine="x86_64")
    if len(head) > 0x3C and head[0x38:0x3C] == b"ARMd":
        return Kernel(family="linux", machine="aarch64")
    return None


def check_machine(kernel: Kernel, name: str) -> None:
    """Raise ImageFault when the kernel is for another machine than this node."""
    node = os.uname().machine
    if kernel.machine != node:
        raise ImageFault(
            f"the kernel is built for {kernel.machine}, this node is {node}",
            subject=name,
            remedy="use an image for this architecture",
        )


def _elf(file: BinaryIO, name: str) -> Kernel | None:
    try:
        return _elf_kernel(file, name)
    except (ELFError, struct.error, ValueError, KeyError, IndexError, OverflowError, MemoryError, EOFError) as error:
        raise _broken(name, str(error)) from error
    except (AttributeError, TypeError, AssertionError, UnicodeDecodeError, RecursionError, OSError) as error:
        # pyelftools meets a hostile file with these.
        raise _broken(name, f"{type(error).__name__}: {error}") from error


def _broken(name: str, why: str) -> ImageFault:
    return ImageFault(
        f"the kernel is a truncated or broken ELF file ({why})", subject=name, remedy="build the image again"
    )


def _elf_kernel(file: BinaryIO, name: str) -> Kernel | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    elf = ELFFile(file)
    machine = _MACHINES.get(_machine(file), str(elf.header["e_machine"]))
    target: str | None = None
    manifest: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    pvh = False
    complete = True
    for segment in elf.iter_segments():
        header = segment.header
        if header["p_offset"] + header["p_filesz"] > size:
            complete = False
            continue
        if not isinstance(segment, NoteSegment) or header["p_filesz"] > _NOTE_LIMIT:
            continue
        for note in segment.iter_notes():
            kind = note["n_type"]
            description = (
                note["n_descdata"] if isinstance(note["n_descdata"], bytes) else note["n_descdata"].encode("latin-1")
            )
            if note["n_name"] == "Solo5" and kind == _ABI1:
                target = _target(description)
            elif note["n_name"] == "Solo5" and kind == _MFT1:
                manifest = _manifest(description)
            elif note["n_name"] == "Xen" and kind == _PVH:
                pvh = True
    if not complete and (target is not None or pvh or elf.num_segments() == 0):
        raise ValueError(f"its segments reach beyond its {size} bytes")
    if target is not None:
        nets, blocks = manifest if manifest is not None else ((), ())
        return Kernel(family="solo5", machine=machine, tender=target, net_devices=nets, block_devices=blocks)
    if pvh:
        return Kernel(family="linux", machine=machine)
    if not complete:
        raise ValueError(f"its segments reach beyond its {size} bytes")
    return None


def _machine(file: BinaryIO) -> int:
    file.seek(18)
    return int.from_bytes(file.read(2), "little")


def _target(description: bytes) -> str:
    number = struct.unpack_from("<I", description)[0]
    if number not in _TARGETS:
        raise ValueError(f"unknown Solo5 target {number}")
    return _TARGETS[number]


def _manifest(description: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Network and block device names, in the manifest's order."""
    # The structure is aligned to 8 bytes and its note's header has 20, so 4 bytes of padding come first.
    start = 4 if len(description) % 8 == 4 else 0
    version, entries = struct.unpack_from("<II", description, start)
    if version != 1 or entries > _ENTRIES:
        raise ValueError(f"a Solo5 manifest of version {version} with {entries} entries")
    nets: list[str] = []
    blocks: list[str] = []
    for position in range(entries):
        at = start + 8 + position * _ENTRY
        raw, kind = struct.unpack_from(f"<{_NAME}sI", description, at)
        device = raw.partition(b"\0")[0].decode("ascii")
        if kind == _NET:
            nets.append(device)
        elif kind == _BLOCK:
            blocks.append(device)
    return tuple(nets), tuple(blocks)
