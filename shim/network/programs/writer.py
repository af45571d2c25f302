"""Writing a program that looks at one frame: its copy on the stack, its ways out."""

from __future__ import annotations

import msgspec

from shim.network.programs.assembly import Assembler, Helper, Register, as_loaded
from shim.network.programs.frame import ETHERNET, PROTOCOL

R0, R1, R2, R3, R4, R5 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R4, Register.R5
CONTEXT, R7, R8, R9, FP = Register.R6, Register.R7, Register.R8, Register.R9, Register.FP

_PASS = -1  # TC_ACT_UNSPEC (linux/pkt_cls.h): the frame goes on its way
_DROP = 2  # TC_ACT_SHOT
_INGRESS = 1  # BPF_F_INGRESS (linux/bpf.h)
# Offsets in struct __sk_buff (linux/bpf.h).
LENGTH, MARK, SEGMENT_SIZE = 0, 8, 176

# The stack: the frame's copy, a map's key and value, small things, and a message under construction.
FRAME = -96
KEY = -104
VALUE = -112
SMALL = -120
SCRATCH = -240


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """Where frames go, by interface index.

    `onward`: every frame is redirected there; None lets it pass. `answer`: where an answer reaches the guest;
    `inward` says that it is put in as if received there. `wire`: the pod's interface, where next hops are asked.
    `turn_round`: frames marked so are sent to the guest by the same way as answers.
    """

    onward: int | None = None
    answer: int = 0
    inward: bool = False
    wire: int = 0
    turn_round: bool = False


class Writer:
    """One program: `code` collects it, `path` says where frames go. The frame goes on at the label `onward`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = Assembler()
        self._droppable = False
        self.code.set(CONTEXT, R1)

    def dispatch(self, kinds: dict[bytes, str]) -> None:
        """Go to a protocol's label; copies the Ethernet header."""
        if kinds:
            self.load(0, ETHERNET)
            self.code.load(2, R7, FP, FRAME + PROTOCOL)
            for kind, label in kinds.items():
                self.code.jump_if(R7, "==", as_loaded(kind), label)
        self.code.jump("onward")

    def finish(self) -> Assembler:
        """The ends of all ways."""
        code = self.code
        code.label("onward")
        if self.path.onward is None:
            code.exit(_PASS)
        else:
            self.redirect(self.path.onward, inward=False)
        if self._droppable:
            code.label("drop")
            code.exit(_DROP)
        return code

    def leave_alone(self) -> None:
        """Let the frame pass, whatever the path says."""
        self.code.exit(_PASS)

    def redirect(self, index: int, *, inward: bool) -> None:
        """The end: the frame leaves by that interface, or comes in by it."""
        self.code.set(R1, index)
        self.code.set(R2, _INGRESS if inward else 0)
        self.code.call(Helper.REDIRECT)
        self.code.exit()

    def redirect_clone(self, index: int, *, inward: bool, mark: int) -> None:
        """Send a copy of the frame as it is now, marked."""
        code = self.code
        code.store(4, CONTEXT, MARK, mark)
        code.set(R1, CONTEXT)
        code.set(R2, index)
        code.set(R3, _INGRESS if inward else 0)
        code.call(Helper.CLONE_REDIRECT)
        code.store(4, CONTEXT, MARK, 0)

    def to_guest(self) -> None:
        """The end: the frame, by now an answer, goes to the guest."""
        self.redirect(self.path.answer, inward=self.path.inward)

    def drop(self) -> None:
        """The end: the frame goes nowhere."""
        self._droppable = True
        self.code.jump("drop")

    def drop_unless_done(self) -> None:
        """Drop the frame if the last call failed: it may be half changed."""
        self._droppable = True
        self.code.jump_if(R0, "!=", 0, "drop")

    def load(self, offset: int | Register, length: int, otherwise: str = "onward") -> None:
        """Copy the frame's bytes from `offset` on to the same place of the copy (a register's: to its start).

        Goes to `otherwise` where there are fewer; the bytes asked for are then zero in the copy.
        """
        code = self.code
        self._droppable = self._droppable or otherwise == "drop"
        code.set(R1, CONTEXT)
        code.set(R2, offset)
        code.frame(R3, FRAME + (offset if not isinstance(offset, Register) else 0))
        code.set(R4, length)
        code.call(Helper.LOAD_BYTES)
        code.jump_if(R0, "!=", 0, otherwise)

    def write(self, offset: int | Register, place: int, length: int) -> None:
        """Overwrite the frame's bytes with the stack's from `place` on."""
        code = self.code
        code.set(R1, CONTEXT)
        code.set(R2, offset)
        code.frame(R3, place)
        code.set(R4, length)
        code.set(R5, 0)
        code.call(Helper.STORE_BYTES)
        self.drop_unless_done()

    def resize(self, length: int) -> None:
        """Make the frame that long, in bytes."""
        code = self.code
        code.set(R1, CONTEXT)
        code.set(R2, length)
        code.set(R3, 0)
        code.call(Helper.CHANGE_TAIL)
        self.drop_unless_done()

    def put(self, place: int, value: bytes) -> None:
        """Constants onto the stack, by halves of words: hardly any place is aligned to more."""
        for position in range(0, len(value), 2):
            self.code.store(2, FP, place + position, as_loaded(value[position : position + 2]))

    def copy(self, target: int, source: int, length: int) -> None:
        """Move bytes about on the stack."""
        for position in range(0, length, 2):
            self.code.load(2, R1, FP, source + position)
            self.code.store(2, FP, target + position, R1)

    def unless_equal(self, offset: int, value: bytes, label: str) -> None:
        """Go to `label` unless the copy has `value` at `offset`."""
        for position in range(0, len(value), 2):
            self.code.load(2, R1, FP, FRAME + offset + position)
            self.code.jump_if(R1, "!=", as_loaded(value[position : position + 2]), label)

    def checksum(self, place: int, length: int) -> None:
        """R7 = the Internet checksum (RFC 1071) of the stack's `length` bytes from `place` on, ready to be stored."""
        code = self.code
        code.set(R1, 0)
        code.set(R2, 0)
        code.frame(R3, place)
        code.set(R4, length)
        code.set(R5, 0)
        code.call(Helper.CHECKSUM_DIFFERENCE)
        code.set(R7, R0)
        for _ in range(3):
            code.set(R1, R7)
            code.compute("rsh", R1, 16)
            code.mask32(R7, 0xFFFF)
            code.compute("add", R7, R1)
        code.compute("xor", R7, -1)
        code.mask32(R7, 0xFFFF)
