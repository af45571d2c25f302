"""Programs of a plan in the kernel: loaded before they are attached, let go once they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shim.errors import NetworkFault
from shim.network.kernel import bpf
from shim.network.operations import AttachProgram
from shim.network.programs import guest_side, hop_values, wire_side
from shim.network.programs.assembly import Assembler
from shim.network.programs.edge import Edge


@contextmanager
def loaded(operations: Iterable[AttachProgram]) -> Iterator[dict[int, int]]:
    """The programs' descriptors, by their operation's `id`; closed afterwards, as what is attached is held by the
    interface. Programs of one interface share what they know of next hops. Blocks for a millisecond; raises
    NetworkFault where the kernel takes no programs."""
    descriptors = _load(list(operations))
    try:
        yield descriptors
    finally:
        _close(descriptors.values())


def _load(operations: list[AttachProgram]) -> dict[int, int]:
    maps: dict[tuple[int, Edge], int] = {}
    programs: dict[int, int] = {}
    try:
        for operation in operations:
            code = written(operation)
            key = operation.path.wire, operation.edge
            if code.uses_map and key not in maps:
                maps[key] = bpf.make_array(hop_values(operation.edge))
            programs[id(operation)] = bpf.load_classifier(code.code(maps.get(key, -1)), operation.side)
    except OSError as error:
        _close(programs.values())
        fault = NetworkFault(
            f"the kernel does not take the program that would {operation.describe()}: {error.strerror}",
            subject=operation.link,
            remedy="the daemon needs CAP_BPF and CAP_NET_ADMIN, the kernel CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF; "
            "the dataplane bridge does without where a pod's network is plain",
        )
        for note in getattr(error, "__notes__", ()):
            fault.add_note(note)
        raise fault from error
    except BaseException:
        _close(programs.values())
        raise
    finally:
        _close(maps.values())
    return programs


def written(operation: AttachProgram) -> Assembler:
    """The program of an operation."""
    return (guest_side if operation.side == "guest" else wire_side)(operation.edge, operation.path)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
