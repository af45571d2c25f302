"""Writing eBPF instructions by name: the little of an assembler that the pod's programs need. Pure.

Encodings are the kernel's user ABI (Documentation/bpf/standardization/instruction-set.rst, linux/bpf.h). An
instruction is eight bytes: opcode, two registers in a byte, a 16-bit offset, a 32-bit immediate.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import Literal

from shim.errors import Bug

_INSTRUCTION = struct.Struct("=BBhi")

_LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_IMMEDIATE, _REGISTER = 0x00, 0x08
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_MEMORY = 0x60
_LOAD_WIDE = 0x18
_CALL, _EXIT, _ALWAYS = 0x85, 0x95, 0x05
_PSEUDO_MAP_FD = 1
_OPERATIONS = {"add": 0x00, "sub": 0x10, "or": 0x40, "and": 0x50, "lsh": 0x60, "rsh": 0x70, "xor": 0xA0, "mov": 0xB0}
_CONDITIONS = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xA0, "<=": 0xB0}
_TO_BIG_ENDIAN = 0xDC  # BPF_ALU | BPF_END | BPF_TO_BE

Condition = Literal["==", "!=", ">", ">=", "<", "<=", "&"]
Operator = Literal["add", "sub", "or", "and", "lsh", "rsh", "xor", "mov"]


class Register(IntEnum):
    """R1 to R5 are a call's arguments and lost with it, R0 its result; R6 to R9 are kept; R10 is the frame."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    FP = 10


class Helper(IntEnum):
    """Functions of the kernel (linux/bpf.h, enum bpf_func_id)."""

    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    STORE_BYTES = 9
    L4_CHECKSUM_REPLACE = 11
    CLONE_REDIRECT = 13
    REDIRECT = 23
    LOAD_BYTES = 26
    CHECKSUM_DIFFERENCE = 28
    CHANGE_TAIL = 38
    ADJUST_ROOM = 50


class Assembler:
    """Collects instructions and labels; `code` puts them together."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}
        self._maps: list[int] = []
        self._fresh = 0

    def label(self, name: str) -> None:
        """Name the next instruction."""
        if name in self._labels:
            raise Bug(f"label {name} is there twice")
        self._labels[name] = len(self._instructions)

    def fresh(self, stem: str) -> str:
        """A label that nobody else uses."""
        self._fresh += 1
        return f"{stem}.{self._fresh}"

    def set(self, target: Register, value: int | Register) -> None:
        """target = value; an immediate is sign-extended to 64 bits."""
        self.compute("mov", target, value)

    def set32(self, target: Register, value: int) -> None:
        """target = value, its upper half zero; `value` is an unsigned 32-bit number."""
        self._emit(_ALU | _OPERATIONS["mov"] | _IMMEDIATE, target, immediate=_signed(value))

    def compute(self, operator: Operator, target: Register, value: int | Register) -> None:
        """target = target OPERATOR value, in 64 bits."""
        if isinstance(value, Register):
            self._emit(_ALU64 | _OPERATIONS[operator] | _REGISTER, target, value)
        else:
            self._emit(_ALU64 | _OPERATIONS[operator] | _IMMEDIATE, target, immediate=value)

    def mask32(self, target: Register, value: int) -> None:
        """target &= value in 32 bits; `value` is unsigned."""
        self._emit(_ALU | _OPERATIONS["and"] | _IMMEDIATE, target, immediate=_signed(value))

    def network_order(self, target: Register, bits: Literal[16, 32]) -> None:
        """Between the machine's byte order and the network's; upper bits are cleared."""
        self._emit(_TO_BIG_ENDIAN, target, immediate=bits)

    def load(self, size: int, target: Register, base: Register, offset: int) -> None:
        """target = the `size` bytes at base + offset."""
        self._emit(_LDX | _MEMORY | _SIZES[size], target, base, offset)

    def store(self, size: int, base: Register, offset: int, value: int | Register) -> None:
        """The `size` bytes at base + offset = value."""
        if isinstance(value, Register):
            self._emit(_STX | _MEMORY | _SIZES[size], base, value, offset)
        else:
            self._emit(_ST | _MEMORY | _SIZES[size], base, offset=offset, immediate=_signed(value))

    def jump(self, label: str) -> None:
        """Go on at `label`."""
        self._jumps[len(self._instructions)] = label
        self._emit(_ALWAYS)

    def jump_if(self, one: Register, condition: Condition, other: int | Register, label: str) -> None:
        """Compare the lower 32 bits, unsigned, and go on at `label` where it holds."""
        self._jumps[len(self._instructions)] = label
        if isinstance(other, Register):
            self._emit(_JMP32 | _CONDITIONS[condition] | _REGISTER, one, other)
        else:
            self._emit(_JMP32 | _CONDITIONS[condition] | _IMMEDIATE, one, immediate=_signed(other))

    def jump_if_null(self, pointer: Register, label: str) -> None:
        """Go on at `label` where a pointer is null: the comparison by which the verifier knows that it is not."""
        self._jumps[len(self._instructions)] = label
        self._emit(_JMP | _CONDITIONS["=="] | _IMMEDIATE, pointer)

    def frame(self, target: Register, offset: int) -> None:
        """target = the address `offset` (negative) from the frame's top."""
        self.set(target, Register.FP)
        self.compute("add", target, offset)

    def map(self, target: Register) -> None:
        """target = the program's map."""
        self._maps.append(len(self._instructions))
        self._emit(_LOAD_WIDE, target, _PSEUDO_MAP_FD)
        self._emit(0)

    def call(self, helper: Helper) -> None:
        """Call a function of the kernel."""
        self._emit(_CALL, immediate=int(helper))

    def exit(self, value: int | None = None) -> None:
        """Return `value`, else what R0 holds."""
        if value is not None:
            self.set(Register.R0, value)
        self._emit(_EXIT)

    @property
    def uses_map(self) -> bool:
        """Whether a map's descriptor is needed."""
        return bool(self._maps)

    def code(self, map_descriptor: int = -1) -> bytes:
        """The program. Raises Bug for a jump to nowhere or too far."""
        out = bytearray()
        for position, (opcode, registers, offset, immediate) in enumerate(self._instructions):
            if position in self._jumps:
                target = self._labels.get(self._jumps[position])
                if target is None:
                    raise Bug(f"no label {self._jumps[position]}")
                offset = target - position - 1
                if not -0x8000 <= offset <= 0x7FFF:
                    raise Bug(f"label {self._jumps[position]} is too far away")
            if position in self._maps:
                immediate = map_descriptor
            out += _INSTRUCTION.pack(opcode, registers, offset, immediate)
        return bytes(out)

    def _emit(self, opcode: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> None:
        # struct bpf_insn keeps both registers in bit fields, whose order is the machine's (linux/bpf.h).
        registers = target | source << 4 if sys.byteorder == "little" else target << 4 | source
        self._instructions.append((opcode, registers, offset, immediate))


def as_loaded(value: bytes) -> int:
    """The number that loading these bytes of a packet gives, without any swapping."""
    return int.from_bytes(value, sys.byteorder)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
