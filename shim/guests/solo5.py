"""Solo5 kernels with no grammar of their own: the container's arguments, as given.

Disks and NICs are attached by the names in the kernel's manifest, so the guest is told of neither; a disk is read as
raw sectors, or by whatever file system the application has.
"""

from __future__ import annotations

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec

_LIMIT = 8192  # bytes: the guest's command line buffer (Solo5, HVT_CMDLINE_SIZE, SPT_CMDLINE_SIZE)


class Solo5:
    """The tender joins the words with spaces, and the guest gets one string."""

    name = "solo5"
    # It is told nothing of the network, so of any address.
    versions = frozenset((4, 6))
    roots: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    # A kernel lies above the first MiB, and tenders take whole ones (HVT_GUEST_MIN_BASE, SPT_GUEST_MIN_BASE).
    minimum: int = 2

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The arguments. Raises InvalidRequest when they are too long for the guest, and for a volume that is no disk
        of the kernel's manifest."""
        for volume in spec.volumes:
            if volume.disk is None or not volume.device:
                raise InvalidRequest(
                    "a Solo5 guest has the disks that its kernel's manifest names, and no others",
                    subject=volume.target or f"disk {volume.disk}",
                    remedy="name the manifest's device for it, or leave the volume out",
                )
        length = len(" ".join(spec.arguments).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the arguments have {length} bytes, a Solo5 guest takes fewer than {_LIMIT}", subject="args"
            )
        return spec.arguments
