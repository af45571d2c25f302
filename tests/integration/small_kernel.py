"""A guest kernel of some sixty bytes, for monitors that run no whole one here.

This machine's KVM takes minutes for what a real kernel does before its first line, and some monitors run under nothing
else. This one prints its command line on the serial console, and then resets the machine, or halts for good. It is
entered as PVH says (Xen, docs/misc/pvh.pandoc): 32-bit protected mode, no paging, ebx at struct hvm_start_info.
"""

from __future__ import annotations

import struct

_BASE = 0x1000000  # 16 MiB, where a Linux kernel is
_PVH = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_PRINTING = bytes.fromhex(
    "8b 5b 18"  # mov ebx, [ebx + 24]: cmdline_paddr
    "66 ba f8 03"  # mov dx, 0x3f8: the first UART's data register
    "8a 03"  # next: mov al, [ebx]
    "84 c0  74 04"  # test al, al; jz end
    "ee  43  eb f6"  # out dx, al; inc ebx; jmp next
    "b0 0a  ee"  # end: mov al, '\n'; out dx, al
)
_RESETTING = bytes.fromhex("b0 fe  e6 64")  # mov al, 0xfe; out 0x64, al: the keyboard controller resets the processor
_HALTING = bytes.fromhex("fa  f4  eb fd")  # cli; hlt, for ever


def kernel(*, stays: bool = False) -> bytes:
    """The ELF file (elf(5)): one loadable segment, and a note with its entry point; `stays`: it halts."""
    at = 64 + 2 * 56
    note = struct.pack("<III4sQ", 4, 8, _PVH, b"Xen\0", _BASE + at + 24)
    body = note + _PRINTING + (b"" if stays else _RESETTING) + _HALTING
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + at + 24, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = at + len(body)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 0x1000)
    note_segment = struct.pack("<IIQQQQQQ", 4, 4, at, _BASE + at, _BASE + at, len(note), len(note), 4)
    return header + load + note_segment + body
