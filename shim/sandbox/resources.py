"""What of a container's limits is the guest's: memory, and virtual processors. Pure."""

from __future__ import annotations

import math

from shim.errors import InvalidRequest

_MIB = 1 << 20


def guest_memory(wish: int | None, limit: int, default: int, overhead: int, minimum: int = 1) -> int:
    """The guest's memory in MiB from the annotation's wish, the container's limit in bytes (0: none), the default,
    the monitor's own need, and the least that the guest's family starts with, in MiB.

    Raises InvalidRequest where they cannot all be true.
    """
    if wish and wish < minimum:
        raise InvalidRequest(
            f"{wish} MiB are too little for such a guest, which needs {minimum} MiB",
            subject="io.unikernel.memory",
            remedy="raise the annotation",
        )
    if not limit:
        return wish or max(default, minimum)
    room = limit // _MIB - overhead
    if wish and wish > room:
        raise InvalidRequest(
            f"a guest of {wish} MiB and its monitor ({overhead} MiB) exceed the memory limit of {limit // _MIB} MiB",
            subject="io.unikernel.memory",
            remedy="raise the limit or lower the annotation",
        )
    if room < minimum:
        raise InvalidRequest(
            f"the memory limit of {limit // _MIB} MiB leaves too little room for a guest ({minimum} MiB at least) "
            f"beside its monitor ({overhead} MiB)",
            subject="resources.limits.memory",
            remedy=f"raise the limit to {minimum + overhead}Mi or more",
        )
    return wish or room


def guest_cpus(wish: float, most: int) -> int:
    """The guest's virtual processors, from the processors that the container may use (0 where that is not said) and the
    most that its monitor gives: one more is no use to it, and one less would keep it from what it may use."""
    return max(1, min(math.ceil(wish), most))
