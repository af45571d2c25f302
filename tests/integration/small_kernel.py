"""A guest kernel of some sixty bytes, for families and monitors of which no whole one can be run here.

This machine's KVM takes minutes for what a real kernel does before its first line, and some monitors run under nothing
else; of other families no registry has a kernel. This one prints its command line on the serial console, and then
resets the machine, or halts for good. It is entered as its file says: by PVH (Xen, docs/misc/pvh.pandoc) and by
Multiboot (specification 0.6.96) in 32-bit protected mode, by Linux (Documentation/arch/x86/boot.rst) in 64-bit mode.
"""

from __future__ import annotations

import struct
from typing import Literal

from tests.unit.oci import elf

_BASE = 0x1000000  # 16 MiB, where a Linux kernel is
# ebx is to point to the command line: which is told in struct hvm_start_info (ebx), struct multiboot_info (ebx) or
# struct boot_params (rsi). Every instruction but those of a loader is the same in 32-bit and in 64-bit mode.
_STARTING = {
    "pvh": bytes.fromhex("8b 5b 18"),  # mov ebx, [ebx + 24]: cmdline_paddr
    "multiboot": bytes.fromhex("8b 5b 10"),  # mov ebx, [ebx + 16]: cmdline
    "linux": bytes.fromhex("8b 9e 28 02 00 00"),  # mov ebx, [rsi + 0x228]: cmd_line_ptr
}
# Writing back what each page begins with: or byte ptr [eax], 0 from 0 on, up to the number in between.
_TOUCHING = bytes.fromhex("31 c0  b9"), bytes.fromhex("80 08 00  05 00100000  39 c8  72 f4")
_PRINTING = bytes.fromhex(
    "66 ba f8 03"  # mov dx, 0x3f8: the first UART's data register
    "8a 03"  # next: mov al, [ebx]
    "84 c0  74 05"  # test al, al; jz end
    "ee  ff c3  eb f5"  # out dx, al; inc ebx; jmp next
    "b0 0a  ee"  # end: mov al, '\n'; out dx, al
)
# esi is to point to the first module, whose first four bytes are then printed, for a loader that has one to load.
_LOADING = bytes.fromhex("8b 73 18  8b 36")  # mov esi, [ebx + 24]; mov esi, [esi]: mods_addr, mod_start
_PRINTING_LOADED = bytes.fromhex("8a 06  ee  46" * 4 + "b0 0a  ee")  # mov al, [esi]; out dx, al; inc esi
# The keyboard controller resets the processor; where there is none (QEMU's microvm), a fault that nothing handles does:
# zeros are the table of handlers.
_RESETTING = (
    bytes.fromhex("b0 fe  e6 64")  # mov al, 0xfe; out 0x64, al
    + bytes.fromhex("e4 64  3c ff  75 09")  # in al, 0x64; cmp al, 0xff; jne halt: the reset is on its way
    + bytes.fromhex("bb" + struct.pack("<I", _BASE - 16).hex() + "0f 01 1b  cc")  # mov ebx, zeros; lidt [ebx]; int3
)
_HALTING = bytes.fromhex("fa  f4  eb fd")  # halt: cli; hlt, for ever
# Multiboot's header, which is to be in the file's first 8 KiB: its magic number, no wishes, a checksum.
_MULTIBOOT = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)


def code(
    start: Literal["pvh", "multiboot", "linux"], *, stays: bool = False, loads: bool = False, touches: int = 0
) -> elf.Code:
    """What it does, for a file that is entered so. `stays`: it halts at last; `loads`: it is a multiboot loader, and
    prints how the program that it is to load begins; `touches`: MiB that it writes to first, in 32-bit mode."""
    data = (_LOADING if loads else b"") + _STARTING[start]
    data += struct.pack("<I", touches << 20).join(_TOUCHING) if touches else b""
    data += _PRINTING + (_PRINTING_LOADED if loads else b"")
    data += (b"" if stays else _RESETTING) + _HALTING
    return elf.Code(data + bytes(-len(data) % 4) + (_MULTIBOOT if start == "multiboot" else b""), _BASE)


def kernel(*, stays: bool = False, touches: int = 0) -> bytes:
    """One that is entered by PVH and says nothing of a family: a Linux kernel, as far as its headers go. `touches`: it
    writes to each page of so many MiB first, 3072 at most, behind which a machine has its devices."""
    return elf.image([elf.pvh(_BASE)], code=code("pvh", stays=stays, touches=touches))
