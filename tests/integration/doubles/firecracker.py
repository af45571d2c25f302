"""A double of Firecracker, as its source has it (tag v1.16.0): standard library only, it runs in a monitor's root.

What it takes of the configuration file is a list of every key that the real one knows, in the tables that we use: an
unknown one in a table ends it, as serde's deny_unknown_fields does (src/vmm/src/vmm_config/*.rs), an unknown table does
not (src/vmm/src/resources.rs, VmmConfig).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from tests.integration.doubles.guest import VNET_HEADER, Guest

_TUNSETIFF, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8  # linux/if_tun.h
_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
_Keys = Mapping[str, tuple[type, bool]]
#: By key: its type, and whether it must be there.
_BOOT: _Keys = {"kernel_image_path": (str, True), "initrd_path": (str, False), "boot_args": (str, False)}
_MACHINE: _Keys = {
    "vcpu_count": (int, True),
    "mem_size_mib": (int, True),
    "smt": (bool, False),
    "cpu_template": (str, False),
    "track_dirty_pages": (bool, False),
    "huge_pages": (str, False),
}
_DRIVE: _Keys = {
    "drive_id": (str, True),
    "partuuid": (str, False),
    "is_root_device": (bool, True),
    "cache_type": (str, False),
    "is_read_only": (bool, False),
    "path_on_host": (str, False),
    "rate_limiter": (dict, False),
    "io_engine": (str, False),
    "socket": (str, False),
}
_INTERFACE: _Keys = {
    "iface_id": (str, True),
    "host_dev_name": (str, True),
    "guest_mac": (str, False),
    "rx_rate_limiter": (dict, False),
    "tx_rate_limiter": (dict, False),
}


def fail(words: str) -> NoReturn:
    """End as the real one does on its way to a machine."""
    sys.exit(f"Error: RunWithoutApiError(BuildMicroVMFromJson({words}))")


def checked(table: Any, keys: _Keys) -> dict[str, Any]:
    """The table, when it has the keys that it must and no other, each of its type."""
    if not isinstance(table, dict):
        fail(f"invalid type: {table!r}")
    for key, value in table.items():
        if key not in keys:
            fail(f"unknown field `{key}`, expected one of {', '.join(keys)}")
        if type(value) is not keys[key][0]:
            fail(f"invalid type of `{key}`: {value!r}")
    for key, (_, needed) in keys.items():
        if needed and key not in table:
            fail(f"missing field `{key}`")
    return table


def attach(name: str) -> int:
    """src/vmm/src/devices/virtio/net/tap.rs, open_named()."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("=16sH22x", name.encode(), _FLAGS))
    fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("=i", VNET_HEADER))
    return tap


def machine(path: str, interface_keys: _Keys) -> Guest:
    """Everything that the file names, opened."""
    with open(path) as file:
        whole = json.load(file)
    boot = checked(whole["boot-source"], _BOOT)
    asked = checked(whole.get("machine-config", {}), _MACHINE)
    if not (1 <= asked["vcpu_count"] <= 32 and asked["mem_size_mib"] > 0):
        fail(f"machine-config {asked!r}")
    for part in ("kernel_image_path", "initrd_path"):
        if part in boot:
            os.close(os.open(boot[part], os.O_RDONLY))
    for drive in whole["drives"]:
        found = checked(drive, _DRIVE)
        os.close(os.open(found["path_on_host"], os.O_RDONLY if found.get("is_read_only") else os.O_RDWR))
    taps = []
    for interface in whole.get("network-interfaces", []):
        found = checked(interface, interface_keys)
        taps.append((attach(found["host_dev_name"]), found["guest_mac"]))
        print(f"mtu={found.get('mtu')}", flush=True)
    return Guest(boot["boot_args"], taps)


def main(version: str) -> None:
    """The program. It handles no SIGTERM, as the real one does not."""
    if sys.argv[1:] == ["--version"]:
        print(f"Firecracker {version}\n")
        return
    if len(sys.argv) != 6 or sys.argv[1] != "--no-api" or sys.argv[2] != "--config-file" or sys.argv[4] != "--level":
        sys.exit(f"Arguments parsing error: {sys.argv[1:]}")
    os.close(os.open("/dev/kvm", os.O_RDWR))
    newer: _Keys = {"mtu": (int, False)} if int(version.split(".")[1]) >= 16 else {}
    guest = machine(sys.argv[3], {**_INTERFACE, **newer})
    while True:
        for tap in select.select(guest.taps, (), ())[0]:
            guest.hear(tap)
