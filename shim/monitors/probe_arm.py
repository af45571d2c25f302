"""A guest of a few bytes for aarch64, to see whether an accelerator really runs one.

It is bare code, which QEMU's `virt` starts with the MMU off, at the exception level of a kernel. It works for a while,
so that a KVM that interprets what it should run is found out; says so on the serial port; and has the firmware's
interface power the machine off, which ends QEMU. How fast its clock goes need not be known: a guest reads that from a
register (CNTFRQ_EL0).
"""

from __future__ import annotations

import struct

from shim.process.spawn import Completed

_SAID = b"probe\n"
#: The machine that it is for (`machines`).
MACHINE = "virt"
#: What comes over the serial port goes to QEMU's stdout.
DEVICES = ("-chardev", "stdio,id=measured,signal=off", "-serial", "chardev:measured")

_UART = 0x09000000  # the PL011 of `virt` (QEMU, hw/arm/virt.c, VIRT_UART), whose first register takes what is sent
_SYSTEM_OFF = 0x84000008  # PSCI (Arm DEN 0022, 5.9); `virt` has it called by hvc where it emulates no hypervisor
_WORK = 1 << 24  # rounds: see probe_x86


def _load(register: int, value: int) -> tuple[int, int]:
    """movz and movk of both halves of `value` (Arm ARM, C6.2: 32-bit variants)."""
    return (
        0x52800000 | (value & 0xFFFF) << 5 | register,
        0x72A00000 | (value >> 16) << 5 | register,
    )


def kernel() -> bytes:
    """The code; QEMU loads a file without the header of an `Image` as it is (QEMU, hw/arm/boot.c)."""
    words = [*_load(0, _WORK), 0x71000400, 0x54FFFFE1]  # again: subs w0, w0, #1; b.ne again
    words += _load(1, _UART)
    for byte in _SAID:
        words += [*_load(2, byte), 0xB9000022]  # str w2, [x1]
    words += [*_load(0, _SYSTEM_OFF), 0xD4000002, 0x14000000]  # hvc #0; b .
    return struct.pack(f"<{len(words)}I", *words)


def passed(done: Completed) -> bool:
    """Whether the guest came to its own end."""
    return done.status == 0 and done.stdout == _SAID


def rate(measured: bytes) -> None:
    """None: nobody need be told it."""
