"""What the daemon has put into the world, on disk before it is there.

One JSON file per record, replaced atomically: a reader sees the old record or the new one, never half of one. The
directory belongs in the run directory, which does not outlive the machine's uptime, as nothing it speaks of does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from shim import log
from shim.errors import NodeFault

_log = log.get(__name__)
Record = TypeVar("Record")


def _revive(kind: type, value: object) -> object:
    """Paths and addresses are written as their text, and made from it again."""
    return kind(value)


class Journal(Generic[Record]):
    """Records of one type under one directory, by key (letters, digits, `.`, `_`, `-`)."""

    def __init__(self, directory: Path, kind: type[Record]) -> None:
        self._directory = directory
        self._decoder = msgspec.json.Decoder(kind, dec_hook=_revive)
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def open(self) -> None:
        """Make the directory (0700). Raises NodeFault where that is impossible."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NodeFault(
                f"the journal cannot be kept: {os.strerror(error.errno or 0)}",
                subject=os.fspath(self._directory),
            ) from error
        # Where a former daemon was killed between the two steps of a write.
        for draft in self._directory.glob(".*.draft"):
            draft.unlink(missing_ok=True)

    def write(self, key: str, record: Record) -> None:
        """Write or replace a record. Raises NodeFault (disk full, read-only): what is not written may not be done."""
        target = self._directory / f"{key}.json"
        draft = self._directory / f".{key}.draft"
        try:
            draft.write_bytes(self._encoder.encode(record))
            draft.replace(target)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise NodeFault(
                f"the journal cannot be written: {os.strerror(error.errno or 0)}",
                subject=os.fspath(target),
                remedy="free space in the run directory",
            ) from error

    def forget(self, key: str) -> None:
        """Remove a record; harmless when it is gone."""
        (self._directory / f"{key}.json").unlink(missing_ok=True)

    def records(self) -> dict[str, Record]:
        """All records by key. One that cannot be read is logged and kept on disk for a human."""
        found: dict[str, Record] = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                found[path.stem] = self._decoder.decode(path.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                _log.error("journal record unreadable", path=os.fspath(path), error=str(error))
        return found
