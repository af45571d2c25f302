"""A guest of a few bytes, to see whether an accelerator really runs one, and how fast its clock goes.

It is an ELF file that QEMU loads by its PVH note, through the same firmware as any kernel. It times its processor's
counter (TSC) by the machine's interval timer, writes each measurement to QEMU's debug console, and ends QEMU by its
debug-exit device, with a status that nothing else produces.
"""

from __future__ import annotations

import struct

#: What QEMU exits with when the guest wrote VALUE to isa-debug-exit: 2 * VALUE + 1 (QEMU, hw/misc/debugexit.c).
_VALUE = 0x2A
STATUS = 2 * _VALUE + 1
#: The two devices, to be added to the machine; what the guest writes comes out on QEMU's stdout.
DEVICES = (
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    *("-chardev", "stdio,id=measured,signal=off"),
    *("-device", "isa-debugcon,iobase=0xe9,chardev=measured"),
)

_ROUNDS = 5
_PIT_RATE = 1193182  # Hz (Intel 8254 as PCs clock it)
_PIT_COUNT = 0xFFFF
_BASE = 0x100000  # where a PVH kernel is loaded: above the first MiB

# 32-bit protected mode, no paging, interrupts off (Xen, docs/misc/pvh.pandoc); no stack is used.
_CODE = bytes.fromhex(
    f"bb {_ROUNDS:02x}000000"  # mov ebx, rounds
    # round: channel 0, both bytes, mode 0: its output rises when the count has run out (8254 data sheet)
    "b0 30  e6 43"  # mov al, 0x30; out 0x43, al
    "b0 ff  e6 40"  # mov al, 0xff; out 0x40, al
    "0f 31  89 c6"  # rdtsc; mov esi, eax: before the count starts, so that a delay can only lengthen a measurement
    "b0 ff  e6 40"  # mov al, 0xff; out 0x40, al: it starts
    "b0 e2  e6 43  e4 40"  # wait: mov al, 0xe2; out 0x43, al; in al, 0x40: the channel's status
    "84 c0  79 f6"  # test al, al; jns wait
    "0f 31  29 f0"  # rdtsc; sub eax, esi
    + "e6 e9  c1 e8 08"
    * 4  # out 0xe9, al; shr eax, 8: the difference, low byte first
    + "4b  75 cb"  # dec ebx; jnz round
    f"b0 {_VALUE:02x}  e6 f4"  # mov al, VALUE; out 0xf4, al
    "f4  eb fd"  # hlt, for ever
)


def kernel() -> bytes:
    """The ELF file (elf(5)): one loadable segment, and the note XEN_ELFNOTE_PHYS32_ENTRY (18) with its entry point."""
    note_at = 64 + 2 * 56  # behind the file's header and two program headers
    code_at = note_at + 24
    entry = _BASE + code_at
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)  # QEMU takes 8 bytes of it from a 64-bit file
    size = code_at + len(_CODE)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, _BASE + note_at, _BASE + note_at, len(note), len(note), 4)
    return header + load + notes + note + _CODE


def rate(measured: bytes) -> int | None:
    """The counter's rate in kHz out of what the guest wrote, None where it wrote too little.

    The shortest round counts: whatever else the node was doing made the others longer.
    """
    if len(measured) < 4 * _ROUNDS:
        return None
    ticks = min(struct.unpack_from(f"<{_ROUNDS}I", measured))
    return ticks * _PIT_RATE // (_PIT_COUNT * 1000) or None
