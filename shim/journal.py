"""What the daemon has put into the world, on disk before it is there.

One JSON file per record, replaced atomically: a reader sees the old record or the new one, never half of one. The
directory belongs in the run directory, which does not outlive the machine's uptime, as nothing it speaks of does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from shim import log
from shim.errors import NodeFault

_log = log.get(__name__)
Record = TypeVar("Record")


class Step(Protocol):
    """Who is told of the journal's steps. Each comes right before something is done to the world."""

    def __call__(self, action: Literal["write", "forget"], key: str, *, done: bool) -> None:
        """`done` is whether it is on disk."""
        ...


def _unwatched(action: Literal["write", "forget"], key: str, *, done: bool) -> None:
    """Nobody is."""


def _revive(kind: type, value: object) -> object:
    """Paths and addresses are written as their text, and made from it again."""
    return kind(value)


class Journal(Generic[Record]):
    """Records of one type under one directory, by key (letters, digits, `.`, `_`, `-`)."""

    def __init__(self, directory: Path, kind: type[Record], step: Step = _unwatched) -> None:
        """`step` is told of each step: before it is on disk, and once it is."""
        self._directory = directory
        self._step = step
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
        self._step("write", key, done=False)
        try:
            draft.write_bytes(self._encoder.encode(record))
            draft.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise NodeFault(
                f"the journal cannot be written: {os.strerror(error.errno or 0)}",
                subject=os.fspath(target),
                remedy="free space in the run directory",
            ) from error
        self._step("write", key, done=True)

    def forget(self, key: str) -> None:
        """Remove a record, of which nothing is left in the world; harmless when it is gone.

        One that cannot be removed is logged: the next daemon finds nothing of what it speaks of, and tries again.
        """
        self._step("forget", key, done=False)
        try:
            (self._directory / f"{key}.json").unlink(missing_ok=True)
        except OSError as error:
            _log.error("journal record stays", path=os.fspath(self._directory / f"{key}.json"), error=str(error))
            return
        self._step("forget", key, done=True)

    def keys(self) -> set[str]:
        """The keys of all records, readable or not."""
        return {path.stem for path in self._directory.glob("*.json")}

    def records(self) -> dict[str, Record]:
        """All records by key. One that cannot be read is logged and kept on disk for a human."""
        found: dict[str, Record] = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                found[path.stem] = self._decoder.decode(path.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                _log.error("journal record unreadable", path=os.fspath(path), error=str(error))
        return found
