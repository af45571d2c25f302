"""What an image or a pod wishes for, in `io.unikernel.*` annotations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import get_args

import msgspec

from shim.config import Dataplane
from shim.errors import InvalidRequest

PREFIX = "io.unikernel."
_KNOWN = ("kernel", "monitor", "guest", "cmdline", "memory", "initrd", "block", "network", "nics", "dataplane")
_NETWORK = ("auto", "none", "required")
_DATAPLANE: tuple[str, ...] = get_args(Dataplane)
# A device's name in a manifest (Solo5, MFT_NAME_SIZE and its check), and an interface's (linux/if.h, IFNAMSIZ, and
# dev_valid_name() of net/core/dev.c), less what separates entries here.
_NIC = re.compile(r"(?:(?P<device>[A-Za-z0-9]{1,67})=)?(?P<interface>[^\s/:,=]{1,15})")
# Kubernetes' quantities: binary and decimal suffixes, and here a bare number is MiB, as the tenders' --mem is.
_UNITS = {"": 1 << 20, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9}
_MIB = 1 << 20
_MOST = 1 << 24  # MiB; more than any machine has


class Assignment(msgspec.Struct, frozen=True):
    """A NIC of the guest: the pod's interface, and the device of the kernel's manifest that it is for ("" for none)."""

    interface: str
    device: str = ""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The annotations, read. None and "" stand for what was not said; `memory` is in MiB."""

    kernel: str = ""
    monitor: str = ""
    guest: str = ""
    cmdline: str = ""
    memory: int | None = None
    initrd: str = ""
    network: str = "auto"
    nics: tuple[Assignment, ...] = ()
    dataplane: str = ""


def parse_nics(text: str) -> tuple[Assignment, ...]:
    """ "service=net1,management=eth0" or "eth0,net1": either every entry names a device or none does.

    Raises InvalidRequest.
    """
    found = [_NIC.fullmatch(entry.strip()) for entry in text.split(",")]
    wanted = tuple(Assignment(entry["interface"], entry["device"] or "") for entry in found if entry)
    if len(wanted) < len(found) or len({wish.device == "" for wish in wanted}) > 1:
        raise InvalidRequest(
            f"{text!r} is not a list of NICs",
            subject=f"{PREFIX}nics",
            remedy="write service=net1,management=eth0 for a kernel with a manifest, eth0,net1 for one without",
        )
    return wanted


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
    return Wishes(
        kernel=given.get("kernel", ""),
        monitor=given.get("monitor", ""),
        guest=given.get("guest", ""),
        cmdline=given.get("cmdline", ""),
        memory=parse_memory(given["memory"]) if given.get("memory") else None,
        initrd=given.get("initrd", ""),
        network=_choice("network", given.get("network") or "auto", _NETWORK),
        nics=parse_nics(given["nics"]) if given.get("nics") else (),
        dataplane=_choice("dataplane", given["dataplane"], _DATAPLANE) if given.get("dataplane") else "",
    )


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidRequest(
            f"{value!r} is not a choice", subject=f"{PREFIX}{name}", remedy=f"choose one of {', '.join(choices)}"
        )
    return value
