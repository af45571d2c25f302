"""Which file of the node becomes which file of an image: one layer's entries, sorted, with nothing of this machine in
them but content, permissions and links."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from shim.errors import ImageFault, InvalidRequest

_WHITEOUT = ".wh."  # image-spec, layer.md: to whoever unpacks it, such a name hides another


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a layer: `path` without a slash at its head, `kind` tarfile's type, `mode` the permission bits;
    a regular file's content is in `source`, or is `data`; a link's target is `target`. Names of one file of the node
    have the same `inode`."""

    path: str
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    source: Path | None = None
    data: bytes = b""
    target: str = ""
    inode: tuple[int, int] | None = None


def items(root: Path | None, files: dict[str, Path | bytes]) -> list[Item]:
    """The entries of an image with all that is below `root`, and `files` by their absolute paths in the image; sorted.

    Directories above `files` are made where `root` has none. Raises InvalidRequest for two files at one path, and for
    what `root` holds and no image can: sockets, devices, FIFOs, names that would hide others.
    """
    found = {item.path: item for item in (_walk(root) if root else ())}
    for path, content in files.items():
        own = path.lstrip("/")
        for above in list(Path(own).parents)[-2::-1]:
            _require_directory(found.setdefault(str(above), _directory(str(above))), path)
        if own in found:
            raise InvalidRequest(f"the root directory has a file there, and {path} is this image's own", subject=path)
        if isinstance(content, bytes):
            found[own] = Item(path=own, data=content)
        else:
            found[own] = Item(path=own, source=content, mode=0o755 if os.access(content, os.X_OK) else 0o644)
    return list(_with_links(found[path] for path in sorted(found)))


def write_layer(sink: BinaryIO | IO[bytes], entries: list[Item], moment: int) -> None:
    """Write a layer's tar, its times all `moment` (seconds since 1970), its owner root, a file at a time.

    Raises ImageFault where a file cannot be read or changes meanwhile.
    """
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for item in entries:
            info = tarfile.TarInfo(item.path)
            info.type, info.mode, info.mtime, info.linkname = item.kind, item.mode, moment, item.target
            if item.source is None:
                info.size = len(item.data)
                tar.addfile(info, _Exactly(None, item.data, item.path))
                continue
            with _opened(item.source) as file:
                info.size = os.fstat(file.fileno()).st_size
                tar.addfile(info, _Exactly(file, b"", os.fspath(item.source)))


def _with_links(entries: Iterable[Item]) -> Iterator[Item]:
    """Further names of a file as hard links to its first, which comes before them."""
    first: dict[tuple[int, int], str] = {}
    for item in entries:
        if item.inode is None:
            yield item
        elif item.inode in first:
            yield Item(path=item.path, kind=tarfile.LNKTYPE, mode=item.mode, target=first[item.inode])
        else:
            first[item.inode] = item.path
            yield item


class _Exactly:
    """A file as tarfile reads it: one that is shorter than it was is an error of the image's, with its name."""

    def __init__(self, file: BinaryIO | None, data: bytes, name: str) -> None:
        self._file, self._data, self._name = file, data, name

    def read(self, size: int = -1, /) -> bytes:
        if self._file is None:
            head, self._data = self._data[:size], self._data[size:]
            return head
        try:
            data = self._file.read(size)
        except OSError as error:
            raise ImageFault(f"the file cannot be read: {error.strerror}", subject=self._name) from error
        if len(data) < size:
            raise ImageFault("the file became shorter while it was read", subject=self._name)
        return data


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ImageFault(f"the file cannot be read: {error.strerror}", subject=os.fspath(path)) from error


def _walk(root: Path) -> Iterator[Item]:
    """All that is below a directory, links as they are."""
    pending = [root]
    while pending:
        try:
            with os.scandir(pending.pop()) as listing:
                below = list(listing)
        except OSError as error:
            raise ImageFault(
                f"the directory cannot be read: {error.strerror}", subject=os.fspath(error.filename)
            ) from error
        for entry in below:
            path = os.path.relpath(entry.path, root)
            found = entry.stat(follow_symlinks=False)
            if entry.name.startswith(_WHITEOUT):
                raise InvalidRequest(
                    "to whoever unpacks the image, this name hides another file", subject=path, remedy="rename it"
                )
            yield _item(path, Path(entry.path), found)
            if stat.S_ISDIR(found.st_mode):
                pending.append(Path(entry.path))


def _item(path: str, source: Path, found: os.stat_result) -> Item:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return _directory(path, mode)
    if stat.S_ISLNK(found.st_mode):
        return Item(path=path, kind=tarfile.SYMTYPE, mode=0o777, target=os.fspath(source.readlink()))
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a FIFO", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
        raise InvalidRequest(
            f"the root directory holds {kinds.get(stat.S_IFMT(found.st_mode), 'what is no file')}, "
            "which no image carries",
            subject=path,
            remedy="remove it; a guest makes its own",
        )
    inode = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
    return Item(path=path, source=source, mode=mode, inode=inode)


def _directory(path: str, mode: int = 0o755) -> Item:
    return Item(path=path, kind=tarfile.DIRTYPE, mode=mode)


def _require_directory(item: Item, path: str) -> None:
    if item.kind != tarfile.DIRTYPE:
        raise InvalidRequest(
            f"the root directory has a file or link at /{item.path}, where this image keeps its own", subject=path
        )
