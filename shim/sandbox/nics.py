"""Which of the pod's interfaces become the guest's NICs, and for which devices of its kernel's manifest. Pure.

    the kernel's manifest | io.unikernel.nics | the guest gets
    ----------------------|-------------------|----------------------------------------------------------------------
    names devices         | DEVICE=INTERFACE  | what that says; every device must be there, once
    names devices         | is not there      | each device the interface of its own name, where every device has one;
                          |                   | else the interfaces in order, where there are as many; else an error
    names none            | is not there      | no NIC
    is not there          | INTERFACE         | those interfaces, in that order
    is not there          | is not there      | all of them, in the pod's order

No interface is given twice. The order of a manifest is the order of its guest's NICs.
"""

from __future__ import annotations

from shim.errors import ImageFault, InvalidRequest
from shim.oci.annotations import PREFIX, Assignment

_SUBJECT = f"{PREFIX}nics"


def match(
    devices: tuple[str, ...] | None, offered: tuple[str, ...], wanted: tuple[Assignment, ...], kernel: str
) -> tuple[Assignment, ...]:
    """The guest's NICs in order, from the manifest's devices (None without one), the interfaces that the pod offers
    and the annotation.

    `kernel` is what errors call the kernel. Raises ImageFault where manifest and pod do not match, InvalidRequest
    where the annotation matches neither; both name what is on either side.
    """
    if wanted:
        _check_interfaces(offered, wanted)
        if devices is None:
            return _in_order(wanted)
        return _by_annotation(devices, wanted)
    if devices is None:
        return tuple(Assignment(name) for name in offered)
    if set(devices) <= set(offered):
        return tuple(Assignment(name, name) for name in devices)
    if len(devices) == len(offered):
        return tuple(Assignment(interface, device) for interface, device in zip(offered, devices, strict=True))
    raise ImageFault(
        f"the kernel's manifest asks for the network devices {_list(devices)}, the pod offers {_list(offered)}",
        subject=kernel,
        remedy=f"say which is which in {_SUBJECT}, as in {devices[0]}={offered[0]}"
        if len(offered) > len(devices)
        else "give the pod as many interfaces, or build the kernel with as many devices",
    )


def _in_order(wanted: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    if wanted[0].device:
        raise InvalidRequest(
            f"{wanted[0].device!r} names a device, and the kernel has no manifest that names any",
            subject=_SUBJECT,
            remedy=f"write {','.join(wish.interface for wish in wanted)}",
        )
    return wanted


def _by_annotation(devices: tuple[str, ...], wanted: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    if not devices:
        raise InvalidRequest("the kernel's manifest names no network device", subject=_SUBJECT, remedy="remove it")
    named = tuple(wish.device for wish in wanted)
    if sorted(named) != sorted(devices):
        raise InvalidRequest(
            f"the kernel's manifest asks for the network devices {_list(devices)}, each of them once; "
            f"the annotation names {_list(tuple(name for name in named if name))}",
            subject=_SUBJECT,
            remedy="write DEVICE=INTERFACE for each",
        )
    interfaces = {wish.device: wish.interface for wish in wanted}
    return tuple(Assignment(interfaces[device], device) for device in devices)


def _check_interfaces(offered: tuple[str, ...], wanted: tuple[Assignment, ...]) -> None:
    names = [wish.interface for wish in wanted]
    for position, name in enumerate(names):
        if name not in offered:
            raise InvalidRequest(
                f"the pod has no interface {name!r} that a guest could be given; it offers {_list(offered)}",
                subject=_SUBJECT,
                remedy="name one of those" if offered else "remove it",
            )
        if name in names[:position]:
            raise InvalidRequest(
                f"the interface {name} cannot be two NICs", subject=_SUBJECT, remedy="name each interface once"
            )


def _list(names: tuple[str, ...]) -> str:
    return f"[{', '.join(names) or 'none'}]"
