"""The machines that QEMU can be asked for, and what is different about each."""

from __future__ import annotations

from typing import Literal

import msgspec

from shim.errors import InvalidRequest, NodeFault


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of QEMU's. `architecture` is as uname(2) says it, `options` what stands behind the name after -M.

    `transport` is how virtio devices are attached, the end of their names (virtio-blk-…); `devices` how many of them
    there is room for.
    """

    name: str
    architecture: str
    options: tuple[str, ...]
    transport: Literal["device", "pci"]
    devices: int


# The first of an architecture is its default.
_KINDS = (
    # virtio-mmio devices and a serial port, and little else. Distributions' kernels find such devices by ACPI only
    # (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is mostly off), which is the machine's default, and then it has 24 transports
    # (QEMU, hw/i386/microvm.c).
    Kind(
        name="microvm",
        architecture="x86_64",
        options=("rtc=on",),
        transport="device",
        devices=24,
    ),
    # A PC, for guests that look for their devices on a PCI bus. What no guest here is given is left out of it. Of 32
    # slots the chipset has two.
    Kind(
        name="q35",
        architecture="x86_64",
        options=("sata=off", "smbus=off", "vmport=off"),
        transport="pci",
        devices=30,
    ),
    # The interrupt controller of the default has room for eight processors, and many nodes cannot give it to a guest of
    # KVM's; max is the best that the node has (QEMU, docs/system/arm/virt.rst). Of 32 slots the host bridge has one.
    Kind(
        name="virt",
        architecture="aarch64",
        options=("gic-version=max",),
        transport="pci",
        devices=31,
    ),
)


def choose(name: str, architecture: str) -> Kind:
    """The machine of that name on a node of that architecture, its default for "".

    Raises InvalidRequest that lists them, NodeFault for an architecture without any.
    """
    kinds = [kind for kind in _KINDS if kind.architecture == architecture]
    if not kinds:
        raise NodeFault(f"no machine of QEMU's is known here for {architecture}", subject=architecture)
    found = next((kind for kind in kinds if name in ("", kind.name)), None)
    if found is None:
        raise InvalidRequest(
            f"QEMU is not asked for {name!r} on {architecture}",
            subject="io.unikernel.machine",
            remedy=f"known are {', '.join(kind.name for kind in kinds)}",
        )
    return found
