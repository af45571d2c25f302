"""Which guest a kernel is, and which monitor runs it. Pure.

the kernel's headers | the guest may be              | without a word
---------------------|-------------------------------|---------------------------------------------------------------
Solo5's              | solo5, rumprun, mirage        | rumprun where the file says so, or is called NAME.nabla
Linux's              | any that is no Solo5 guest    | linux
another family's     | that one                      | that one
say nothing          | any but a Solo5 guest, linux  | an error
"""

from __future__ import annotations

from shim.errors import ImageFault, InvalidRequest
from shim.oci.annotations import Wishes
from shim.oci.kernel import Kernel
from shim.oci.support import GUESTS, MONITORS, monitors_of

NABLA = ".nabla"
_ON_SOLO5 = ("solo5", "rumprun", "mirage")
_UNKNOWN = tuple(guest for guest in GUESTS if guest not in (*_ON_SOLO5, "linux"))
_BESIDE = {"solo5": _ON_SOLO5, "linux": ("linux", *_UNKNOWN), "": _UNKNOWN}
# Whose kernels look for their devices on a PCI bus, unless they were built otherwise; of microvm's devices ACPI tells,
# which they do not ask (kraftkit, machine/qemu/v1alpha1.go, starts a pc; hermit-os/loader, README.md; OSv,
# drivers/virtio-mmio.cc).
_ON_PCI = ("unikraft", "hermit", "osv")
# Who takes an initrd: Hermit's loader gets its application so (hermit-os/loader, README.md).
_TAKES_INITRD = ("linux", "unikraft", "hermit")


def may_be_unmarked(guest: str) -> bool:
    """Whether a file whose headers say nothing can be a kernel of that guest."""
    return guest in _UNKNOWN


def check_words(wanted: Wishes) -> None:
    """Raise InvalidRequest where the annotations contradict each other, or name what is not there, whatever the image
    holds."""
    for field, value, known in (("guest", wanted.guest, GUESTS), ("monitor", wanted.monitor, MONITORS)):
        if value and value not in known:
            raise InvalidRequest(
                f"{value!r} is not a {field}", subject=wanted.key(field), remedy=f"known are {', '.join(known)}"
            )
    if wanted.guest and wanted.monitor and wanted.monitor not in monitors_of(wanted.guest):
        raise InvalidRequest(
            f"{wanted.monitor!r} contradicts {wanted.key('guest')} {wanted.guest!r}",
            subject=wanted.key("monitor"),
            remedy=f"{wanted.guest} guests run on {_either(monitors_of(wanted.guest))}",
        )


def guest_of(kernel: Kernel, name: str, wanted: Wishes) -> str:
    """The guest that the kernel called `name` is. Raises InvalidRequest where the annotation says another."""
    if not wanted.guest:
        if kernel.family == "solo5":
            return "rumprun" if name.endswith(NABLA) else kernel.guest or "solo5"
        return kernel.family
    if wanted.guest not in _BESIDE.get(kernel.family, (kernel.family,)):
        raise contradiction(wanted, "guest", wanted.guest, f"the kernel says it is {kernel.family}")
    return wanted.guest


def monitor_of(kernel: Kernel, guest: str, wanted: Wishes) -> str:
    """The monitor: the one that is wished for, else the guest's first, and for a Solo5 kernel its tender.

    Raises InvalidRequest where that does not run it, ImageFault for a tender that is none of ours.
    """
    works = (kernel.tender,) if kernel.family == "solo5" else monitors_of(guest)
    if wanted.monitor and wanted.monitor not in works:
        raise contradiction(wanted, "monitor", wanted.monitor, f"this {guest} kernel runs on {_either(works)}")
    if works[0] not in monitors_of(guest):
        raise ImageFault(
            f"the kernel is built for Solo5's {works[0]} target",
            subject=kernel.tender,
            remedy=f"build it for {_either(monitors_of(guest))}",
        )
    return wanted.monitor or works[0]


def machine_of(kernel: Kernel, guest: str, monitor: str, wanted: Wishes) -> str:
    """The monitor's machine: the one that is wished for, else one where the guest finds its devices, "" where that is
    the monitor's own choice."""
    on_pci = guest in _ON_PCI and monitor == "qemu" and kernel.machine == "x86_64"
    return wanted.machine or ("q35" if on_pci else "")


def check_rest(kernel: Kernel, guest: str, wanted: Wishes) -> None:
    """Raise InvalidRequest for what the guest, or this kernel of it, has no use for."""
    if wanted.initrd and guest not in _TAKES_INITRD:
        raise contradiction(wanted, "initrd", wanted.initrd, f"the guest is {guest}, which takes none")
    if wanted.cmdline and kernel.family == "solo5":
        raise contradiction(
            wanted, "cmdline", wanted.cmdline, f"the guest is {guest}: put its arguments into the container's args"
        )
    named = [block.device for block in wanted.blocks if block.device]
    devices = kernel.block_devices
    if devices is None and named:
        raise InvalidRequest(
            f"{named[0]!r} names a device, and the kernel has no manifest that names any",
            subject=wanted.key("block"),
            remedy="leave the names out",
        )
    if devices is not None and (not set(named) <= set(devices) or len(set(named)) < len(named)):
        raise InvalidRequest(
            f"the kernel's manifest asks for the block devices [{', '.join(devices) or 'none'}], each of them once; "
            f"the annotation names [{', '.join(named)}]",
            subject=wanted.key("block"),
            remedy="name one of those for each",
        )


def contradiction(wanted: Wishes, field: str, value: str, why: str) -> InvalidRequest:
    """An annotation that says otherwise than the image."""
    return InvalidRequest(
        f"{value!r} contradicts the image: {why}", subject=wanted.key(field), remedy="remove one of them"
    )


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
