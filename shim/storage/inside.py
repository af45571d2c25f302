"""Paths inside an image, resolved by the kernel so that no link leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from shim.errors import ImageFault

# include/uapi/asm-generic/unistd.h; the number is the same on every architecture we run on.
_SYS_OPENAT2 = 437
# include/uapi/linux/openat2.h
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 0x02, 0x08, 0x10
_LINKS = 40  # as many as the kernel follows (path_resolution(7))


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


def _open_inside(root: Path, path: str) -> int:
    """Open `path` as if `root` were `/`. A relative link that climbs out of the image is refused (EXDEV) and not, as
    in a chroot, stopped at the top: no image means what it says then."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_CLOEXEC
        try:
            return _openat2(top, path.lstrip("/") or ".", flags, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            # Absolute links are EXDEV too under BENEATH, and those are the image's own; look which it was.
            if error.errno != errno.EXDEV or _climbs_out(top, path):
                raise
        return _openat2(top, path.lstrip("/") or ".", flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(top)


def _climbs_out(top: int, path: str) -> bool:
    """Whether following `path` meets a `..` at the image's top, reading one link after another."""
    pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
    walked: list[str] = []
    for _ in range(_LINKS * 64):
        if not pending:
            return False
        part = pending.pop()
        if part == "..":
            if not walked:
                return True
            walked.pop()
            continue
        try:
            target = os.readlink("/".join([*walked, part]), dir_fd=top)
        except OSError:
            walked.append(part)
            continue
        if target.startswith("/"):
            walked = []
        pending += [piece for piece in target.split("/") if piece not in ("", ".")][::-1]
    return True


def find(root: Path, path: str, what: str) -> Path:
    """The regular file `path` of the image at `root`, as a path on the node; blocks.

    Raises ImageFault, calling the file `what`, when it is missing, not a regular file, or outside the image.
    """
    if "\0" in path:
        raise ImageFault(f"the path of the {what} holds a NUL byte", subject=repr(path))
    try:
        descriptor = _open_inside(root, path)
    except OSError as error:
        raise ImageFault(_reason(error, what), subject=path) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageFault(f"the {what} is not a regular file", subject=path)
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def _reason(error: OSError, what: str) -> str:
    match error.errno:
        case errno.EXDEV:
            return f"the {what}'s path leads out of the image"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no such {what} in the image (links are followed inside the image)"
        case errno.ELOOP:
            return f"the {what}'s path has too many links, or one into /proc"
        case _:
            return f"the {what} cannot be opened: {error.strerror}"
