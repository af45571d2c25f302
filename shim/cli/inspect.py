"""`unikernel-shim inspect`: all that the service knows of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from shim.cli import terminal
from shim.cli.pods import pod_argument

_WIDTH: Final = 11  # of the names
_STYLES: Final = {"running": "good", "paused": "doubtful", "stopped": "quiet"}


@click.command("inspect", epilog=terminal.EXIT_CODES)
@pod_argument()
@terminal.json_option("Print all of it as JSON.")
@click.pass_obj
def command(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Print what the service knows of POD.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's or a container's id.
    """
    import msgspec

    from shim import config
    from shim.cli.client import ask
    from shim.wire import inspection_pb2 as pb

    answer = ask(config.load(config_path), "Inspect", pb.InspectRequest(pod=pod), pb.InspectResponse)
    found = msgspec.json.decode(answer.json)
    if as_json:
        terminal.print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    pod = found["pod"]
    _pairs(
        ("pod", (f"{pod['namespace']}/{pod['name']}" if pod["name"] else "none", "head")),
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
        status = container["status"]
        terminal.print_words(f"{what}{name} {container['id']}: ", (status, _STYLES.get(status, "")), ended)
    if found["unikernel"]:
        _unikernel(found["unikernel"])


def _unikernel(found: dict[str, Any]) -> None:
    plumbed = found["plumbed_in"]
    _pairs(
        ("guest", found["guest"]),
        ("monitor", found["monitor"]),
        ("last words", found["words"]),
        ("plumbed in", f"{plumbed * 1e3:.1f} ms" if plumbed else None),
    )
    for nic in found["nics"]:
        terminal.print_words((nic["name"], "head"), f", {nic['dataplane']} to {nic['tap']}, the guest is told:")
        _pairs(
            ("address", " ".join(nic[key] for key in ("address", "address6") if nic[key]) or "none"),
            ("gateway", " ".join(nic[key] for key in ("gateway", "gateway6") if nic[key]) or "none"),
            ("MAC", nic["mac"]),
            ("MTU", str(nic["mtu"])),
            ("next hop", " ".join(nic[key] for key in ("next_hop", "next_hop6") if nic[key]) or "none"),
            ("router MAC", nic["virtual_mac"] or None),
            margin="  ",
        )
    for note in found["notes"]:
        terminal.print_words(("note: ", "doubtful"), note)
    check = found["check"]
    if check is None:
        terminal.print_words("check: never")
        return
    outcome = ("something is wrong", "bad") if check["failed"] else ("nothing is wrong", "good")
    terminal.print_words(f"check at {check['at']}: ", outcome)
    for finding in check["findings"]:
        where = f"{finding['interface']} {finding['family']} {finding['probe']}"
        style = outcome_style(finding["outcome"], failed=finding["failed"])
        terminal.print_words(f"  {where}: ", (finding["outcome"], style), f", {finding['sentence']}")


def outcome_style(outcome: str, *, failed: bool) -> str:
    """How a check's outcome looks."""
    if failed:
        return "bad"
    return "good" if outcome == "proven" else "quiet"


def _pairs(*pairs: tuple[str, terminal.Cell | None], margin: str = "") -> None:
    terminal.print_pairs([(name, value) for name, value in pairs if value], margin=margin, width=_WIDTH)
