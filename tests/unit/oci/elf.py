"""Kernel files made of nothing but their headers, for tests of what reads them.

Layouts: elf(5); Solo5's notes (include/elf_abi.h, mft_abi.h); Linux's boot header (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

ABI1, MFT1, PVH = 0x31494241, 0x3154464D, 18
HVT, SPT, VIRTIO = 1, 2, 3
BLOCK, NET, FIRST = 1, 2, 1 << 30
X86_64, AARCH64 = 62, 183


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    """One note, padded."""
    name = owner + b"\0"
    return (
        struct.pack("<III", len(name), len(description), kind)
        + name.ljust(len(name) + 3 & ~3, b"\0")
        + description.ljust(len(description) + 3 & ~3, b"\0")
    )


def abi(target: int = SPT, version: int = 2) -> bytes:
    """Solo5's ABI note."""
    return note(b"Solo5", ABI1, struct.pack("<IIII", target, version, 0, 0))


def manifest(devices: Sequence[tuple[bytes, int]] = (), version: int = 1, count: int | None = None) -> bytes:
    """Solo5's manifest note; `count` is what it claims."""
    entries = [(b"", FIRST), *devices]
    body = b"".join(struct.pack("<68sI32x", name, kind) for name, kind in entries)
    claimed = len(entries) if count is None else count
    return note(b"Solo5", MFT1, bytes(4) + struct.pack("<II", version, claimed) + body)


def image(notes: Sequence[bytes] = (), machine: int = X86_64, *, solo5: bool = False, segments: int = 0) -> bytes:
    """A 64-bit ELF file with one PT_NOTE a note and a PT_LOAD with something in it; `segments` more are empty."""
    bodies = [(4, each) for each in notes]
    if solo5:
        bodies.append((3, b"/nonexistent/solo5/\0"))
    bodies.append((1, b"\x90" * 32))
    bodies += [(0, b"")] * segments
    at = 64 + 56 * len(bodies)
    headers, data = b"", b""
    for kind, body in bodies:
        place = at + len(data)
        headers += struct.pack("<IIQQQQQQ", kind, 4, place, place, place, len(body), len(body), 4)
        data += body
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return (
        ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, len(bodies), 0, 0, 0) + headers + data
    )


def solo5(target: int = SPT, nets: Sequence[bytes] = (), blocks: Sequence[bytes] = (), machine: int = X86_64) -> bytes:
    """A Solo5 kernel."""
    devices = [(name, NET) for name in nets] + [(name, BLOCK) for name in blocks]
    return image([manifest(devices), abi(target)], machine, solo5=True)


def program(machine: int = X86_64) -> bytes:
    """An ordinary program, with the note every distribution's programs have."""
    return image([note(b"GNU", 3, bytes(20))], machine)


def bzimage(version: int = 0x020F, sectors: int = 1, paragraphs: int = 8) -> bytes:
    """A Linux kernel for x86-64."""
    head = bytearray((sectors + 1) * 512 + paragraphs * 16)
    head[0x1F1] = sectors
    struct.pack_into("<I", head, 0x1F4, paragraphs)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    return bytes(head)


def arm64() -> bytes:
    """A Linux kernel for aarch64 (Documentation/arch/arm64/booting.rst)."""
    return bytes(0x38) + b"ARMd" + bytes(4)
