"""What an image or a pod wishes for, in `io.unikernel.*` annotations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from shim.errors import InvalidRequest

PREFIX = "io.unikernel."
_KNOWN = ("kernel", "monitor", "guest", "cmdline", "memory", "initrd", "block", "network")
_NETWORK = ("auto", "none", "required")
# Kubernetes' quantities: binary and decimal suffixes, and here a bare number is MiB, as the tenders' --mem is.
_UNITS = {"": 1 << 20, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9}
_MIB = 1 << 20
_MOST = 1 << 24  # MiB; more than any machine has


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The annotations, read. None and "" stand for what was not said; `memory` is in MiB."""

    kernel: str = ""
    monitor: str = ""
    guest: str = ""
    cmdline: str = ""
    memory: int | None = None
    initrd: str = ""
    network: str = "auto"


def parse_memory(text: str) -> int:
    """MiB out of "64", "64Mi", "1Gi" or "64M", rounded down. Raises InvalidRequest."""
    found = re.fullmatch(r"([0-9]{1,12})([KMG]i?|k)?", text.strip())
    mib = int(found[1]) * _UNITS[found[2] or ""] // _MIB if found else 0
    if not 1 <= mib <= _MOST:
        raise InvalidRequest(
            f"{text!r} is not an amount of memory",
            subject=f"{PREFIX}memory",
            remedy="write 64, 64Mi or 1Gi (1 MiB to 16 TiB)",
        )
    return mib


def wishes(annotations: Mapping[str, str]) -> Wishes:
    """Read the annotations of a container, the pod's already over the image's.

    Raises InvalidRequest for an unknown key or a value that makes no sense, naming it.
    """
    given: dict[str, str] = {}
    for key, value in annotations.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, 1)
            raise InvalidRequest(
                "unknown annotation",
                subject=key,
                remedy=f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(_KNOWN)}",
            )
        given[name] = value
    if given.get("block"):
        raise InvalidRequest("block devices are not supported yet", subject=f"{PREFIX}block", remedy="remove it")
    network = given.get("network") or "auto"
    if network not in _NETWORK:
        raise InvalidRequest(
            f"{network!r} is not a choice", subject=f"{PREFIX}network", remedy=f"choose one of {', '.join(_NETWORK)}"
        )
    return Wishes(
        kernel=given.get("kernel", ""),
        monitor=given.get("monitor", ""),
        guest=given.get("guest", ""),
        cmdline=given.get("cmdline", ""),
        memory=parse_memory(given["memory"]) if given.get("memory") else None,
        initrd=given.get("initrd", ""),
        network=network,
    )
