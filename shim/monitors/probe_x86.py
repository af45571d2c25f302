"""A guest of a few bytes for x86-64, to see whether an accelerator really runs one, and how fast its clock goes.

It is an ELF file that QEMU loads by its PVH note, through the same firmware as any kernel. It times its processor's
counter (TSC) by the machine's interval timer, and writes each measurement to QEMU's debug console. Then it does what
every kernel does first: it goes to 64-bit mode with page tables of its own, meets an exception and returns from its
handler. And it works for a while: there are KVMs (seen: a paravirtual one) that run a guest rightly and interpret its
every instruction, so that a kernel would take minutes to boot. At last it ends QEMU by its debug-exit device, with a
status that nothing else produces.
"""

from __future__ import annotations

import struct

from shim.process.spawn import Completed

#: What QEMU exits with when the guest wrote VALUE to isa-debug-exit: 2 * VALUE + 1 (QEMU, hw/misc/debugexit.c).
_VALUE = 0x2A
STATUS = 2 * _VALUE + 1
#: The machine that it is for (`machines`).
MACHINE = "microvm"
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
_PAGE = 0x1000
# Page by page behind the code: three levels of page tables, then the descriptor tables.
_PML4, _PDPT, _PD, _TABLES = (_BASE + number * _PAGE for number in (1, 2, 3, 4))
_GDT, _IDT = _TABLES + 0x10, _TABLES + 0x40
# Milliseconds for a processor, a tenth of a second for TCG, and half a minute where KVM interprets each instruction.
_WORK = 1 << 24
_STACK = 0x1F0000  # below 2 MiB, which is all that is mapped
_INVALID_OPCODE = 6  # the vector of #UD (Intel SDM, volume 3, 6.3.1)


def _u32(value: int) -> str:
    return struct.pack("<I", value).hex()


# 32-bit protected mode, no paging, interrupts off (Xen, docs/misc/pvh.pandoc); no stack is used.
_TIMING = bytes.fromhex(
    f"bb {_ROUNDS:02x}000000"  # mov ebx, rounds
    # round: channel 0, both bytes, mode 0: its output rises when the count has run out (8254 data sheet)
    "b0 30  e6 43"  # mov al, 0x30; out 0x43, al
    "b0 ff  e6 40"  # mov al, 0xff; out 0x40, al
    "0f 31  89 c6"  # rdtsc; mov esi, eax: before the count starts, so that a delay can only lengthen a measurement
    "b0 ff  e6 40"  # mov al, 0xff; out 0x40, al: it starts
    "b0 e2  e6 43  e4 40"  # wait: mov al, 0xe2; out 0x43, al; in al, 0x40: the channel's status
    "84 c0  79 f6"  # test al, al; jns wait
    "0f 31  29 f0"  # rdtsc; sub eax, esi
    + "e6 e9  c1 e8 08" * 4  # out 0xe9, al; shr eax, 8: the difference, low byte first
    + "4b  75 cb"  # dec ebx; jnz round
)
# Into 64-bit mode (Intel SDM, volume 3, 9.8.5).
_ENTERING = bytes.fromhex(
    "0f 20 e0  0c 20  0f 22 e0"  # mov eax, cr4; or al, 0x20 (PAE); mov cr4, eax
    f"b8 {_u32(_PML4)}  0f 22 d8"  # mov eax, PML4; mov cr3, eax
    f"b9 {_u32(0xC0000080)}  0f 32"  # mov ecx, EFER; rdmsr
    "80 cc 01  0f 30"  # or ah, 1 (LME); wrmsr
    f"0f 01 15 {_u32(_TABLES)}"  # lgdt
    f"0f 20 c0  0d {_u32(1 << 31)}  0f 22 c0"  # mov eax, cr0; or eax, PG; mov cr0, eax
)
_JUMP = 7  # bytes of the jump that follows, to the first 64-bit segment
_HANDLING = bytes.fromhex(
    f"bc {_u32(_STACK)}"  # mov esp, STACK
    "31 c0  8e d0"  # xor eax, eax; mov ss, eax
    f"0f 01 1c 25 {_u32(_TABLES + 6)}"  # lidt
    "0f 0b"  # ud2: the exception
    f"b9 {_u32(_WORK)}  ff c9  75 fc"  # mov ecx, WORK; again: dec ecx; jnz again
    f"b0 {_VALUE:02x}  e6 f4"  # mov al, VALUE; out 0xf4, al
    "f4  eb fd"  # hlt, for ever
)
_HANDLER = bytes.fromhex("48 83 04 24 02  48 cf")  # add qword [rsp], 2: behind the ud2; iretq


def _page(*parts: tuple[int, bytes]) -> bytes:
    """A page with each part at its address."""
    page = bytearray(_PAGE)
    for address, part in parts:
        page[address % _PAGE : address % _PAGE + len(part)] = part
    return bytes(page)


def kernel() -> bytes:
    """The ELF file (elf(5)): one loadable segment, and the note XEN_ELFNOTE_PHYS32_ENTRY (18) with its entry point."""
    note_at = 64 + 2 * 56  # behind the file's header and two program headers
    code_at = note_at + 24
    entry = _BASE + code_at
    long_mode = entry + len(_TIMING) + len(_ENTERING) + _JUMP
    handler = long_mode + len(_HANDLING)
    code = _TIMING + _ENTERING + struct.pack("<BIH", 0xEA, long_mode, 8) + _HANDLING + _HANDLER
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)  # QEMU takes 8 bytes of it from a 64-bit file
    size = 5 * _PAGE
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, _PAGE)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, _BASE + note_at, _BASE + note_at, len(note), len(note), 4)
    first = _page((0, header + load + notes + note + code))
    # Present and writable; the last level is one page of 2 MiB (Intel SDM, volume 3, 4.5).
    levels = _page((0, struct.pack("<Q", _PDPT | 3))) + _page((0, struct.pack("<Q", _PD | 3)))
    levels += _page((0, struct.pack("<Q", 0x83)))
    # A segment of 64-bit code (3.4.5); an interrupt gate to it (6.14.1).
    segments = struct.pack("<QQ", 0, 0x00AF9A000000FFFF)
    gate = struct.pack("<HHHHII", handler & 0xFFFF, 8, 0x8E00, handler >> 16, 0, 0)
    tables = _page(
        (_TABLES, struct.pack("<HI", len(segments) - 1, _GDT)),
        (_TABLES + 6, struct.pack("<HQ", 16 * (_INVALID_OPCODE + 1) - 1, _IDT)),
        (_GDT, segments),
        (_IDT + 16 * _INVALID_OPCODE, gate),
    )
    return first + levels + tables


def passed(done: Completed) -> bool:
    """Whether the guest came to its own end."""
    return done.status == STATUS and rate(done.stdout) is not None


def rate(measured: bytes) -> int | None:
    """The counter's rate in kHz out of what the guest wrote, None where it wrote too little.

    The shortest round counts: whatever else the node was doing made the others longer.
    """
    if len(measured) < 4 * _ROUNDS:
        return None
    ticks = min(struct.unpack_from(f"<{_ROUNDS}I", measured))
    return ticks * _PIT_RATE // (_PIT_COUNT * 1000) or None
