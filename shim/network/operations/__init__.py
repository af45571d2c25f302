"""The steps of plumbing, as values.

An operation says in words what it does and either encodes itself as netlink requests or runs in the namespace. It
holds all it needs, so that a plan can be written down, read back by another process, and undone. Which operation
undoes which is decided where the layout is known (`vacate` and the dataplanes).
"""

from __future__ import annotations

import msgspec

from shim.network.operations.addresses import AddAddress, AddNeighbour, AddRoute, DelAddress, DelNeighbour, DelRoute
from shim.network.operations.base import LocalOperation, NetlinkOperation
from shim.network.operations.filters import AttachProgram, CarryFilters, DetachProgram, DropFilters
from shim.network.operations.links import (
    CreateBridge,
    CreateMacvtap,
    DelLink,
    Enslave,
    Release,
    SetAlias,
    SetAllMulticast,
    SetMac,
    SetMtu,
    SetUp,
    StopLearning,
)
from shim.network.operations.local import CreateTap, OpenMacvtap, SetSysctl

__all__ = [
    "AddAddress",
    "AddNeighbour",
    "AddRoute",
    "AttachProgram",
    "CarryFilters",
    "CreateBridge",
    "CreateMacvtap",
    "CreateTap",
    "DelAddress",
    "DelLink",
    "DelNeighbour",
    "DelRoute",
    "DetachProgram",
    "DropFilters",
    "Enslave",
    "LocalOperation",
    "NetlinkOperation",
    "OpenMacvtap",
    "Operation",
    "Release",
    "SetAlias",
    "SetAllMulticast",
    "SetMac",
    "SetMtu",
    "SetSysctl",
    "SetUp",
    "Step",
    "StopLearning",
]

Operation = (
    AddAddress
    | DelAddress
    | AddRoute
    | DelRoute
    | AddNeighbour
    | DelNeighbour
    | SetMac
    | SetMtu
    | SetAlias
    | SetAllMulticast
    | SetUp
    | CreateBridge
    | CreateMacvtap
    | DelLink
    | Enslave
    | Release
    | StopLearning
    | CarryFilters
    | DropFilters
    | AttachProgram
    | DetachProgram
    | CreateTap
    | OpenMacvtap
    | SetSysctl
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An operation and what undoes it, in the order in which that must be done. Empty where `lapses` says with what
    else the effect goes away."""

    do: Operation
    undo: tuple[Operation, ...] = ()
    lapses: str = ""
