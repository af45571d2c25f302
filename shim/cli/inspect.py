"""`unikernel-shim inspect`: all that the service knows of a pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from shim.cli import terminal


@click.command("inspect")
@click.argument("pod")
@terminal.json_option("Print all of it as JSON.")
@click.pass_obj
def command(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Print what the service knows of POD: NAME, NAMESPACE/NAME, or the beginning of a sandbox's id."""
    import msgspec

    from shim import config
    from shim.cli.client import ask
    from shim.wire import inspection_pb2 as pb

    answer = ask(config.load(config_path), "Inspect", pb.InspectRequest(pod=pod), pb.InspectResponse)
    found = msgspec.json.decode(answer.json)
    if as_json:
        terminal.print_json(found)
    else:
        click.echo("\n".join(_lines(found)))


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
