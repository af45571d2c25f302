"""Kernel files made of nothing but their headers, for tests of what reads them.

Layouts: elf(5); Solo5's notes (include/elf_abi.h, mft_abi.h); Linux's boot header (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

ABI1, MFT1, PVH, GUEST_OS = 0x31494241, 0x3154464D, 18, 6
HVT, SPT, VIRTIO = 1, 2, 3
BLOCK, NET, FIRST = 1, 2, 1 << 30
I386, X86_64, AARCH64 = 3, 62, 183
_IDLE = b"\x90" * 32


class Code(NamedTuple):
    """What a kernel is made of besides its headers: loaded at `address`, and entered there."""

    data: bytes = _IDLE
    address: int = 0


_NO_CODE = Code()


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


def pvh(address: int = 0) -> bytes:
    """Xen's note of the address where a kernel is entered."""
    return note(b"Xen", PVH, struct.pack("<Q", address))


def manifest(devices: Sequence[tuple[bytes, int]] = (), version: int = 1, count: int | None = None) -> bytes:
    """Solo5's manifest note; `count` is what it claims."""
    entries = [(b"", FIRST), *devices]
    body = b"".join(struct.pack("<68sI32x", name, kind) for name, kind in entries)
    claimed = len(entries) if count is None else count
    return note(b"Solo5", MFT1, bytes(4) + struct.pack("<II", version, claimed) + body)


def image(
    notes: Sequence[bytes] = (),
    machine: int = X86_64,
    *,
    solo5: bool = False,
    segments: int = 0,
    sections: Sequence[str] = (),
    os_abi: int = 0,
    bits: Literal[32, 64] = 64,
    code: Code = _NO_CODE,
) -> bytes:
    """An ELF file with one PT_NOTE a note and a PT_LOAD with `code` in it; `segments` more are empty. With `sections`
    it has a table of them, empty but for their names."""
    bodies = [(4, each) for each in notes]
    if solo5:
        bodies.append((3, b"/nonexistent/solo5/\0"))
    bodies.append((1, code.data))
    bodies += [(0, b"")] * segments
    header, entry, section = (64, 56, 64) if bits == 64 else (52, 32, 40)
    at = header + entry * len(bodies)
    headers, data = b"", b""
    for kind, body in bodies:
        place, size = at + len(data), len(body)
        address = code.address if kind == 1 else 0
        if bits == 64:
            headers += struct.pack("<IIQQQQQQ", kind, 4, place, address, address, size, size, 1)
        else:
            headers += struct.pack("<IIIIIIII", kind, place, address, address, size, size, 4, 1)
        data += body
    table = b""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (".shstrtab", *sections))
    if sections:
        data += names
        table = _section(bits, 0, 0, 0, 0)
        for name in sections:
            table += _section(bits, names.index(b"\0" + name.encode() + b"\0") + 1, 1, at, 0)
        table += _section(bits, 1, 3, at + len(data) - len(names), len(names))
    count = len(sections) + 2 if sections else 0
    tail = (0, header, entry, len(bodies), section if count else 0, count, max(count - 1, 0))
    places = (code.address, header, at + len(data) if count else 0)
    return (
        b"\x7fELF"
        + bytes([bits // 32, 1, 1, os_abi])
        + bytes(8)
        + struct.pack("<HHI" + ("QQQ" if bits == 64 else "III") + "IHHHHHH", 2, machine, 1, *places, *tail)
        + headers
        + data
        + table
    )


def _section(bits: int, name: int, kind: int, place: int, size: int) -> bytes:
    return struct.pack("<II" + ("QQQQIIQQ" if bits == 64 else "IIIIIIII"), name, kind, 0, 0, place, size, 0, 0, 1, 0)


def solo5(target: int = SPT, nets: Sequence[bytes] = (), blocks: Sequence[bytes] = (), machine: int = X86_64) -> bytes:
    """A Solo5 kernel."""
    devices = [(name, NET) for name in nets] + [(name, BLOCK) for name in blocks]
    return image([manifest(devices), abi(target)], machine, solo5=True)


def rumprun(target: int = SPT, machine: int = X86_64) -> bytes:
    """A Solo5 kernel that is rumprun's, with the devices that those have (nabla-containers/rumprun, manifest.json)."""
    devices = [(b"rootfs", BLOCK), (b"tap", NET)]
    return image([manifest(devices), abi(target)], machine, solo5=True, sections=[".text", "link_set_rump_components"])


def unikraft(machine: int = X86_64, *, multiboot: bool = False, code: Code = _NO_CODE) -> bytes:
    """A Unikraft kernel; for QEMU it is made a 32-bit file (unikraft, support/scripts/multiboot.py)."""
    sections = [".text", ".uk_ctortab", ".uk_inittab", ".uk_bootinfo", ".data"]
    if multiboot:
        return image((), I386, bits=32, sections=sections, code=code)
    return image((), machine, sections=sections, code=code)


def hermit(machine: int = X86_64) -> bytes:
    """A Hermit program, which a loader is to start."""
    return image([note(b"HERMIT", 0x5A00, b"\4")], machine, os_abi=255)


def osv(machine: int = X86_64, *, xen: bool = True, code: Code = _NO_CODE) -> bytes:
    """OSv's kernel, with or without its drivers for Xen."""
    names = [note(b"Xen", GUEST_OS, b"osv\0")] if xen else []
    sections = [] if xen else [".start32_address", ".text"]
    return image([*names, pvh(code.address)], machine, sections=sections, code=code)


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
