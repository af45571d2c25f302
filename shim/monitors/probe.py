"""A guest of a few bytes, to see whether an accelerator really runs one.

It is an ELF file that QEMU loads by its PVH note, through the same firmware as any kernel; its one act is to write to
QEMU's debug-exit device, which ends QEMU with a status that nothing else produces.
"""

from __future__ import annotations

import struct

#: What QEMU exits with when the guest wrote VALUE to isa-debug-exit: 2 * VALUE + 1 (QEMU, hw/misc/debugexit.c).
_VALUE = 0x2A
STATUS = 2 * _VALUE + 1
#: The device, to be added to the machine.
DEVICE = "isa-debug-exit,iobase=0xf4,iosize=0x04"

_BASE = 0x100000  # where a PVH kernel is loaded: above the first MiB
# mov al, VALUE; mov dx, 0xf4; out dx, al; hlt; jmp to the hlt
_CODE = bytes([0xB0, _VALUE, 0x66, 0xBA, 0xF4, 0x00, 0xEE, 0xF4, 0xEB, 0xFD])


def kernel() -> bytes:
    """The ELF file (elf(5)): one loadable segment, and the note XEN_ELFNOTE_PHYS32_ENTRY (18) with its entry point."""
    headers = 64 + 2 * 56
    note_at = headers
    # QEMU takes an 8-byte entry point from a 64-bit ELF file.
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0)
    code_at = note_at + len(note)
    entry = _BASE + code_at
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)
    size = code_at + len(_CODE)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, _BASE + note_at, _BASE + note_at, len(note), len(note), 4)
    return header + load + notes + note + _CODE
