"""What an image is made from."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Source(msgspec.Struct, frozen=True):
    """A directory of the node, as the image's top.

    `layers` are the lower directories of the overlay mount that `directory` is, uppermost first, where its upper
    directory is still empty: they name what is in it without its being read. They must be what nobody changes any more,
    as a snapshotter's committed snapshots are, each in a directory of its own (`snapshots/N/fs`).
    """

    directory: Path
    layers: tuple[Path, ...] = ()
