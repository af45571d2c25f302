"""A plan in the words of ip(8) and tc(8), as far as they have words for it: what plumbing is measured against.

Left out, because they have none: settings below /proc/sys, the open device of a macvtap, and programs for the
classifier that are not in a file. Where such a program redirects, tc(8)'s `mirred` action stands for it, as tools have
it that mirror with tc. A tap comes by `ip tuntap`, persistent, with an index that the kernel chooses.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shim.network.layout import Address, Route
from shim.network.operations import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    AttachProgram,
    CarryFilters,
    CreateBridge,
    CreateMacvtap,
    CreateTap,
    DelAddress,
    DelLink,
    DelNeighbour,
    DelRoute,
    DetachProgram,
    DropFilters,
    Enslave,
    Operation,
    Release,
    SetAlias,
    SetMac,
    SetMtu,
    SetUp,
    StopLearning,
)

#: RTNH_F_ONLINK (linux/rtnetlink.h).
_ON_LINK = 0x4


@dataclass(frozen=True)
class Batch:
    """Lines for `ip -batch` and for `tc -batch`, which run one after the other."""

    ip: tuple[str, ...]
    tc: tuple[str, ...]

    def run(self, namespace: str) -> None:
        """Start each program that has anything to do. Raises CalledProcessError."""
        for program, lines in (("ip", self.ip), ("tc", self.tc)):
            if lines:
                start(program, namespace, lines)


def start(program: str, namespace: str, lines: Iterable[str]) -> None:
    """One program with its lines, by the namespace's name. Raises CalledProcessError."""
    subprocess.run(
        [program, "-n", namespace, "-batch", "-"],
        input="\n".join(lines).encode(),
        check=True,
        stdout=subprocess.DEVNULL,
    )


def spelled(operations: Iterable[Operation], names: Mapping[int, str]) -> Batch:
    """The batch for these operations; `names` are of interfaces by index."""
    said = [line for operation in operations for line in _lines(operation, names)]
    return Batch(
        ip=tuple(line for program, line in said if program == "ip"),
        tc=tuple(line for program, line in said if program == "tc"),
    )


def names(operations: Iterable[Operation]) -> dict[int, str]:
    """The names of the interfaces that operations are about, by index."""
    return {
        operation.index: operation.link
        for operation in operations
        if isinstance(operation, CreateTap | CreateMacvtap | CreateBridge | SetAlias)
    }


def _lines(operation: Operation, names: Mapping[int, str]) -> list[tuple[str, str]]:
    match operation:
        case CarryFilters():
            return [("tc", f"qdisc add dev {operation.link} clsact")]
        case DropFilters():
            return [("tc", f"qdisc del dev {operation.link} clsact")]
        case AttachProgram() if operation.path.onward is not None:
            redirect = f"mirred egress redirect dev {names[operation.path.onward]}"
            place = f"dev {operation.link} {operation.place} protocol all"
            return [("tc", f"filter add {place} u32 match u32 0 0 action {redirect}")]
        case DetachProgram():
            return [("tc", f"filter del dev {operation.link} {operation.place}")]
        case _:
            line = _of_ip(operation, names)
            return [("ip", line)] if line else []


def _of_ip(operation: Operation, names: Mapping[int, str]) -> str:
    match operation:
        case CreateTap():
            return f"tuntap add dev {operation.link} mode tap{' vnet_hdr' if operation.vnet_hdr else ''}"
        case CreateBridge(index=index, mac=mac, mtu=mtu):
            return f"link add {operation.link} index {index} address {mac} mtu {mtu} type bridge mcast_snooping 0"
        case CreateMacvtap(index=index, parent=parent, mtu=mtu):
            return (
                f"link add link {names[parent]} name {operation.link} index {index} mtu {mtu} "
                "type macvtap mode passthru"
            )
        case DelLink():
            return f"link del {operation.link}"
        case Enslave(bridge=bridge):
            return f"link set {operation.link} master {bridge}"
        case Release():
            return f"link set {operation.link} nomaster"
        case StopLearning():
            return f"link set {operation.link} type bridge_slave learning off"
        case SetMac(mac=mac):
            return f"link set {operation.link} address {mac}"
        case SetMtu(mtu=mtu):
            return f"link set {operation.link} mtu {mtu}"
        case SetAlias(alias=alias):
            return f'link set {operation.link} alias "{alias}"'
        case SetUp():
            return f"link set {operation.link} up"
        case AddAddress(address=address):
            return f"addr add {_address(address)} dev {operation.link}"
        case DelAddress(address=address):
            return f"addr del {address} dev {operation.link}"
        case AddRoute(route=route):
            return f"route append {_route(route)} dev {operation.link}"
        case DelRoute(route=route):
            return f"route del {_route(route)} dev {operation.link}"
        case AddNeighbour(address=neighbour, mac=mac):
            return f"neigh replace {neighbour} lladdr {mac} nud permanent dev {operation.link}"
        case DelNeighbour(address=neighbour):
            return f"neigh del {neighbour} dev {operation.link}"
        case _:
            return ""


def _address(address: Address) -> str:
    return f"{address} brd +" if address.version == 4 and address.prefix < 31 else str(address)


def _route(route: Route) -> str:
    words = [route.kind, route.destination]
    if route.gateway:
        words += ["via", route.gateway]
    words += ["table", str(route.table), "proto", str(route.protocol), "scope", str(route.scope)]
    if route.source:
        words += ["src", route.source]
    if route.metric:
        words += ["metric", str(route.metric)]
    if route.mtu:
        words += ["mtu", str(route.mtu)]
    if route.flags & _ON_LINK:
        words.append("onlink")
    return " ".join(words)
