"""What the installer changes on a node: each step does it and undoes it, and either may be repeated after a kill.

A step is on record before it is done, so undoing it finds it done, half done, or not begun. What somebody has changed
since is theirs and stays; `undo` then says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from contrib.kubernetes.installer import registration
from contrib.kubernetes.installer.node import Node

#: Ends the name of a file or directory in the making; what a kill leaves of it is made anew, or goes with its step.
_DRAFT = ".unikernel-shim.new"


class Step(Protocol):
    """One change of a node."""

    path: str

    def done(self, node: Node) -> bool:
        """Whether nothing is left to do."""

    def do(self, node: Node) -> None:
        """Make the change. Raises OSError."""

    def undo(self, node: Node) -> str:
        """Take it back as far as it is there; what stays and why, or "". Raises OSError."""


class Directory(msgspec.Struct, frozen=True, tag=True):
    """A directory that was not there."""

    path: str

    def done(self, node: Node) -> bool:
        return node.path(self.path).is_dir()

    def do(self, node: Node) -> None:
        node.path(self.path).mkdir(mode=0o755, exist_ok=True)

    def undo(self, node: Node) -> str:
        with contextlib.suppress(FileNotFoundError):
            try:
                node.path(self.path).rmdir()
            except OSError:
                return f"{self.path} stays: it is not empty"
        return ""


class Claim(msgspec.Struct, frozen=True, tag=True):
    """A directory that is not there and that the service will make and fill."""

    path: str

    def done(self, node: Node) -> bool:
        return True

    def do(self, node: Node) -> None:
        pass

    def undo(self, node: Node) -> str:
        _remove(node.entry(self.path))
        return ""


class Tree(msgspec.Struct, frozen=True, tag=True):
    """A copy of the directory `source` of this image, complete or not there at all."""

    path: str
    source: str

    def done(self, node: Node) -> bool:
        return node.path(self.path).is_dir()

    def do(self, node: Node) -> None:
        target, draft = node.path(self.path), self._draft(node)
        _remove(draft)
        shutil.copytree(self.source, draft, symlinks=True)
        draft.rename(target)

    def undo(self, node: Node) -> str:
        _remove(self._draft(node))
        with contextlib.suppress(FileNotFoundError):
            # By a rename first: half a tree must not pass for a whole one.
            node.path(self.path).rename(self._draft(node))
        _remove(self._draft(node))
        return ""

    def _draft(self, node: Node) -> Path:
        path = node.path(self.path)
        return path.with_name(f".{path.name}{_DRAFT}")


class File(msgspec.Struct, frozen=True, tag=True):
    """A file of ours. `earlier` are the SHA-256 sums of what former installations wrote there."""

    path: str
    text: str
    earlier: tuple[str, ...] = ()

    def following(self, former: File) -> File:
        """This one in the place of what a former installation wrote."""
        sums = {*former.earlier, _sum(former.text.encode())} - {_sum(self.text.encode())}
        return msgspec.structs.replace(self, earlier=tuple(sorted(sums)))

    def done(self, node: Node) -> bool:
        # What somebody has changed is not written over.
        there = _content(node.path(self.path))
        return there is not None and _sum(there) not in self.earlier

    def do(self, node: Node) -> None:
        target = node.path(self.path)
        draft = _drafted(target, self.text)
        draft.chmod(0o644)
        draft.replace(target)

    def undo(self, node: Node) -> str:
        target = node.path(self.path)
        _draft_of(target).unlink(missing_ok=True)
        there = _content(target)
        if there is None:
            return ""
        if _sum(there) not in {*self.earlier, _sum(self.text.encode())}:
            return f"{self.path} stays: somebody has changed it"
        target.unlink()
        return ""


class Link(msgspec.Struct, frozen=True, tag=True):
    """A symbolic link of ours. `earlier` are targets that former installations gave it."""

    path: str
    target: str
    earlier: tuple[str, ...] = ()

    def following(self, former: Link) -> Link:
        """This one in the place of a former installation's."""
        return msgspec.structs.replace(self, earlier=tuple(sorted({*former.earlier, former.target} - {self.target})))

    def done(self, node: Node) -> bool:
        link = node.entry(self.path)
        return os.path.lexists(link) and not (link.is_symlink() and str(link.readlink()) in self.earlier)

    def do(self, node: Node) -> None:
        link = node.entry(self.path)
        _draft_of(link).unlink(missing_ok=True)
        _draft_of(link).symlink_to(self.target)
        _draft_of(link).replace(link)

    def undo(self, node: Node) -> str:
        link = node.entry(self.path)
        _draft_of(link).unlink(missing_ok=True)
        if not os.path.lexists(link):
            return ""
        if not (link.is_symlink() and str(link.readlink()) in (self.target, *self.earlier)):
            return f"{self.path} stays: somebody has changed it"
        link.unlink()
        return ""


class Block(msgspec.Struct, frozen=True, tag=True):
    """A text of ours at the end of somebody's file. `sum` and `mtime` (ns) are the file's before the first change."""

    path: str
    text: str
    sum: str = ""
    mtime: int = 0
    earlier: tuple[str, ...] = ()

    def following(self, former: Block) -> Block:
        """This one in the place of a former installation's."""
        texts = {*former.earlier, former.text} - {self.text}
        return msgspec.structs.replace(self, sum=former.sum, mtime=former.mtime, earlier=tuple(sorted(texts)))

    def before(self, node: Node) -> Block:
        """This one with what is to be known of the file before it is changed. Raises OSError."""
        target = node.path(self.path)
        return msgspec.structs.replace(self, sum=_sum(target.read_bytes()), mtime=target.stat().st_mtime_ns)

    def done(self, node: Node) -> bool:
        return self.text in node.path(self.path).read_text()

    def do(self, node: Node) -> None:
        target = node.path(self.path)
        _rewrite(target, self._without(target.read_text()) + self.text)

    def undo(self, node: Node) -> str:
        target = node.path(self.path)
        _draft_of(target).unlink(missing_ok=True)
        if not target.exists():
            return ""
        text = target.read_text()
        rest = self._without(text)
        unchanged = _sum(rest.encode()) == self.sum
        if rest != text:
            _rewrite(target, rest, self.mtime if unchanged else None)
        elif unchanged:
            os.utime(target, ns=(target.stat().st_atime_ns, self.mtime))
        return "" if unchanged else f"{self.path} has what somebody else changed in it, and nothing of ours"

    def _without(self, text: str) -> str:
        for each in (self.text, *self.earlier):
            if each in text:
                return text.replace(each, "", 1)
        return registration.without_block(text)


AnyStep: TypeAlias = Directory | Claim | Tree | File | Link | Block


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_DRAFT}")


def _drafted(path: Path, text: str) -> Path:
    """The text beside `path`, for root alone as long as it is not what it will be: containerd's file may hold passwords
    of registries. It is on the disk, so that a node that loses power has the old file or the new one, and no empty one.
    """
    draft = _draft_of(path)
    draft.unlink(missing_ok=True)
    with open(draft, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _rewrite(path: Path, text: str, mtime: int | None = None) -> None:
    """Replace a file of somebody's in one step, with its mode, owner and extended attributes (as SELinux's label)."""
    kept, draft = path.stat(), _drafted(path, text)
    os.chown(draft, kept.st_uid, kept.st_gid)
    for name in os.listxattr(path):
        # The kernel sets some of them itself and lets nobody else do it.
        with contextlib.suppress(OSError):
            os.setxattr(draft, name, os.getxattr(path, name))
    # Last: a change of owner drops bits of it.
    draft.chmod(stat.S_IMODE(kept.st_mode))
    if mtime is not None:
        os.utime(draft, ns=(kept.st_atime_ns, mtime))
    draft.replace(path)
