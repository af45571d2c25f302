"""`unikernel-shim inspect`: all that the service knows of a pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shim.cli.client import ask
from shim.config import Config
from shim.wire import inspection_pb2 as pb


def text(config: Config, pod: str, *, as_json: bool) -> str:
    """A page for people, or the JSON object as it is. Raises what the service answers."""
    answer = ask(config, "Inspect", pb.InspectRequest(pod=pod), pb.InspectResponse)
    if as_json:
        return msgspec.json.format(answer.json, indent=2) + "\n"
    return "\n".join(_lines(msgspec.json.decode(answer.json))) + "\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    pod = found["pod"]
    yield from _pairs(
        ("pod", f"{pod['namespace']}/{pod['name']}" if pod["name"] else "none"),
        ("sandbox", found["id"]),
        ("namespace", found["namespace"]),
        ("netns", found["netns"] or "none"),
        ("created", found["created_at"]),
        ("stopped", found["stopped_at"]),
    )
    for container in found["containers"]:
        what = "unikernel" if container["unikernel"] else "container"
        name = f" {container['name']}" if container["name"] else ""
        ended = f", exit status {container['exit']['status']}" if container["exit"] else f", pid {container['pid']}"
        yield f"{what}{name} {container['id']}: {container['status']}{ended}"
    if found["unikernel"]:
        yield from _unikernel(found["unikernel"])


def _unikernel(found: dict[str, Any]) -> Iterator[str]:
    plumbed = found["plumbed_in"]
    yield from _pairs(
        ("monitor", found["monitor"]),
        ("last words", found["words"]),
        ("plumbed in", f"{plumbed * 1e3:.1f} ms" if plumbed else None),
    )
    for nic in found["nics"]:
        yield f"{nic['name']}, {nic['dataplane']} to {nic['tap']}, the guest is told:"
        yield from _pairs(
            ("address", " ".join(nic[key] for key in ("address", "address6") if nic[key]) or "none"),
            ("gateway", " ".join(nic[key] for key in ("gateway", "gateway6") if nic[key]) or "none"),
            ("MAC", nic["mac"]),
            ("MTU", str(nic["mtu"])),
            ("next hop", " ".join(nic[key] for key in ("next_hop", "next_hop6") if nic[key]) or "none"),
            ("router MAC", nic["virtual_mac"] or None),
            margin="  ",
        )
    for note in found["notes"]:
        yield f"note: {note}"
    check = found["check"]
    if check is None:
        yield "check: never"
        return
    yield f"check at {check['at']}: {'something is wrong' if check['failed'] else 'nothing is wrong'}"
    for finding in check["findings"]:
        where = f"{finding['interface']} {finding['family']} {finding['probe']}"
        yield f"  {where}: {finding['outcome']}, {finding['sentence']}"


def _pairs(*pairs: tuple[str, str | None], margin: str = "") -> Iterator[str]:
    return (f"{margin}{name:<11} {value}" for name, value in pairs if value)
