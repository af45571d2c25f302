"""Paths inside an image, resolved so that no link leads out of it.

Absolute links start at the image's top, as they would in a running container; `..` above the top is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from shim.errors import Bug, ImageFault

# include/uapi/asm-generic/unistd.h; the number is the same on every architecture we run on.
_SYS_OPENAT2 = 437
# include/uapi/linux/openat2.h
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_LINKS = 40  # as many as the kernel follows (path_resolution(7))
_OPEN = os.O_PATH | os.O_CLOEXEC


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = _How(flags, 0, resolve)
    descriptor = int(_libc.syscall(_SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return descriptor


def _open_inside(root: Path, path: str) -> tuple[int, int]:
    """Descriptors of `root` and of `path` opened as if `root` were `/`; the caller closes both.

    A link that climbs out of the image is refused (EXDEV) and not, as in a chroot, stopped at the top: no image means
    what it says then.
    """
    top = os.open(root, _OPEN | os.O_DIRECTORY)
    try:
        try:
            beneath = _openat2(top, path.lstrip("/") or ".", _OPEN, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            # EXDEV stands for absolute links too, and those are the image's own. ENOSYS is Linux before 5.6, EPERM a
            # system call filter that does not know openat2. EAGAIN is a rename or mount anywhere on the machine
            # meanwhile, after which the kernel cannot tell whether `..` led out.
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.EAGAIN):
                raise
            beneath = _walk(top, path)
    except BaseException:
        os.close(top)
        raise
    return top, beneath


def _walk(top: int, path: str) -> int:
    """Open `path` one name after another, following links by reading them; absolute ones start again at `top`.

    Directories passed stay open, and `..` goes back to one of them, so that nothing renamed meanwhile leads out.
    Raises OSError: EXDEV with the link's path (or `path` itself) where `..` leads out, ELOOP for too many links.
    """
    passed: list[tuple[int, str]] = []
    pending = _names(path, path)
    links = 0
    try:
        while pending:
            name, culprit = pending.pop()
            if name == "..":
                if not passed:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), culprit)
                os.close(passed.pop()[0])
                continue
            here = passed[-1][0] if passed else top
            found = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=here)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                passed.append((found, name))
                continue
            try:
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            link = "/" + "/".join([*(part for _, part in passed), name])
            if target.startswith("/"):
                _close(passed)
            pending += _names(target, link)
        return os.dup(passed[-1][0] if passed else top)
    finally:
        _close(passed)


def _names(path: str, culprit: str) -> list[tuple[str, str]]:
    """A path's names, last first, each with what is to blame should it lead out."""
    return [(name, culprit) for name in reversed(path.split("/")) if name not in ("", ".")]


def _close(passed: list[tuple[int, str]]) -> None:
    while passed:
        os.close(passed.pop()[0])


def find(root: Path, path: str, what: str) -> Path:
    """The regular file `path` of the image at `root`, as a path on the node; blocks.

    Raises ImageFault, calling the file `what`, when it is missing, not a regular file, or outside the image.
    """
    if "\0" in path:
        raise ImageFault(f"the path of the {what} holds a NUL byte", subject=repr(path))
    try:
        top, descriptor = _open_inside(root, path)
    except OSError as error:
        raise ImageFault(_reason(error, what), subject=path) from error
    except ValueError as error:  # a path that no file system can hold
        raise ImageFault(f"the path of the {what} cannot be one: {error}", subject=repr(path)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageFault(f"the {what} is not a regular file", subject=path)
        found = _place(descriptor)
        if not found.is_relative_to(_place(top)):
            raise Bug(f"the {what} was resolved to {found}, outside the image", subject=path)
        return found
    finally:
        os.close(descriptor)
        os.close(top)


def _place(descriptor: int) -> Path:
    """Where the node's file tree has what a descriptor stands for (proc(5), /proc/pid/fd)."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _reason(error: OSError, what: str) -> str:
    match error.errno:
        case errno.EXDEV:
            return f"the {what}'s path leads out of the image, at {error.filename}"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no such {what} in the image (links are followed inside the image)"
        case errno.ELOOP:
            return f"the {what}'s path has too many links, or one into /proc"
        case _:
            return f"the {what} cannot be opened: {error.strerror}"
