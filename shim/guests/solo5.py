"""Solo5 kernels with no grammar of their own: the container's arguments, as given."""

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
    minimum: int = 1

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The arguments. Raises InvalidRequest when they are too long for the guest."""
        length = len(" ".join(spec.arguments).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the arguments have {length} bytes, a Solo5 guest takes fewer than {_LIMIT}", subject="args"
            )
        return spec.arguments
