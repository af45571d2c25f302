"""Mounting a container's root file system from the mounts containerd hands over, and unmounting it.

The calls block, so they run in worker threads. Options are read as mount(8) reads them; what is left over is data for
the file system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from shim.errors import NodeFault, Unsupported

# include/uapi/linux/mount.h; the second member says whether the option sets or clears the flag.
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_SYNCHRONOUS, _MS_REMOUNT = 1, 2, 4, 8, 16, 32
_MS_MANDLOCK, _MS_DIRSYNC, _MS_NOATIME, _MS_NODIRATIME, _MS_BIND, _MS_REC = 64, 128, 1024, 2048, 4096, 16384
_MS_UNBINDABLE, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
_MS_RELATIME, _MS_STRICTATIME = 1 << 21, 1 << 24
_FLAGS: dict[str, tuple[int, bool]] = {
    "ro": (_MS_RDONLY, True),
    "rw": (_MS_RDONLY, False),
    "nosuid": (_MS_NOSUID, True),
    "suid": (_MS_NOSUID, False),
    "nodev": (_MS_NODEV, True),
    "dev": (_MS_NODEV, False),
    "noexec": (_MS_NOEXEC, True),
    "exec": (_MS_NOEXEC, False),
    "sync": (_MS_SYNCHRONOUS, True),
    "async": (_MS_SYNCHRONOUS, False),
    "mand": (_MS_MANDLOCK, True),
    "nomand": (_MS_MANDLOCK, False),
    "dirsync": (_MS_DIRSYNC, True),
    "noatime": (_MS_NOATIME, True),
    "atime": (_MS_NOATIME, False),
    "nodiratime": (_MS_NODIRATIME, True),
    "diratime": (_MS_NODIRATIME, False),
    "relatime": (_MS_RELATIME, True),
    "norelatime": (_MS_RELATIME, False),
    "strictatime": (_MS_STRICTATIME, True),
    "nostrictatime": (_MS_STRICTATIME, False),
    "bind": (_MS_BIND, True),
    "rbind": (_MS_BIND | _MS_REC, True),
    "defaults": (0, True),
}
_PROPAGATION = {
    "private": _MS_PRIVATE,
    "rprivate": _MS_PRIVATE | _MS_REC,
    "slave": _MS_SLAVE,
    "rslave": _MS_SLAVE | _MS_REC,
    "shared": _MS_SHARED,
    "rshared": _MS_SHARED | _MS_REC,
    "unbindable": _MS_UNBINDABLE,
    "runbindable": _MS_UNBINDABLE | _MS_REC,
}
# What containerd itself makes an idmapped mount of, for a pod in a user namespace (its core/mount, mount_linux.go).
_ID_MAPS = ("uidmap=", "gidmap=")
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLONE_FS = 0x200  # include/uapi/linux/sched.h
_PAGE = 4096  # the kernel copies at most one page of mount data

_libc = ctypes.CDLL(None, use_errno=True)


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One mount as containerd describes it (containerd.types.Mount); `target` is relative to the root file system."""

    type: str
    source: str
    options: tuple[str, ...] = ()
    target: str = ""


class _Arguments(msgspec.Struct, frozen=True):
    flags: int
    propagation: int
    data: str


def parse_options(options: Sequence[str]) -> _Arguments:
    """Split options into mount(2)'s flags, propagation flags (their own call) and file system data.

    Raises Unsupported for one that asks for other owners than the files have.
    """
    flags = propagation = 0
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            flag, sets = _FLAGS[option]
            flags = flags | flag if sets else flags & ~flag
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        elif option.startswith(_ID_MAPS):
            raise Unsupported(
                "a user namespace needs a root file system with other owners, which this runtime does not mount",
                subject="hostUsers",
                remedy="leave hostUsers true",
            )
        else:
            data.append(option)
    return _Arguments(flags, propagation, ",".join(data))


def shorten(data: str) -> tuple[str, str]:
    """Overlay data with many layers made to fit a page: the directory all layers share, and data relative to it.

    Returns ("", data) where there is nothing to gain.
    """
    options = dict(option.partition("=")[::2] for option in data.split(","))
    lower = options.get("lowerdir", "").split(":")
    if len(data) < _PAGE or len(lower) < 2:
        return "", data
    base = os.path.commonpath(lower)
    if base == "/":
        return "", data
    options["lowerdir"] = ":".join(os.path.relpath(path, base) for path in lower)
    return base, ",".join(f"{key}={value}" if value else key for key, value in options.items())


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    if _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode() or None
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _in_directory(directory: str, call: Callable[[], None]) -> None:
    """Run `call` in a thread of its own whose working directory is `directory`: the daemon's must not move."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            if _libc.unshare(_CLONE_FS):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "unshare(CLONE_FS)")
            os.chdir(directory)
            call()
        except BaseException as error:  # carried over to the thread that waits
            failure.append(error)

    thread = threading.Thread(target=work, name="mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _mount_one(mount: Mount, target: str) -> None:
    arguments = parse_options(mount.options)
    base, data = shorten(arguments.data) if mount.type == "overlay" else ("", arguments.data)

    def call() -> None:
        _mount(mount.source, target, mount.type, arguments.flags, data)

    if base:
        _in_directory(base, call)
    else:
        call()
    if arguments.flags & _MS_BIND and arguments.flags & ~(_MS_BIND | _MS_REC):
        # A bind takes no other flag at first; they need a second call (mount(2)).
        _mount("", target, "", arguments.flags | _MS_REMOUNT, "")
    if arguments.propagation:
        _mount("", target, "", arguments.propagation, "")


def mount_all(mounts: Sequence[Mount], root: Path) -> None:
    """Mount `mounts` at `root`, all or none; blocks. Raises NodeFault naming the mount that failed."""
    done: list[str] = []
    for mount in mounts:
        target = os.path.normpath(os.path.join(root, mount.target.lstrip("/")))  # noqa: PTH118
        if os.path.commonpath((target, root)) != os.fspath(root):
            unmount_all(root)
            raise NodeFault("a mount of the root file system points out of it", subject=mount.target)
        try:
            _mount_one(mount, target)
        except OSError as error:
            if done:
                unmount_all(root)
            raise NodeFault(
                f"the root file system cannot be mounted ({mount.type} on {target}): {error.strerror}",
                subject=mount.source or mount.type,
            ) from error
        done.append(target)


def _unmount(target: str) -> bool:
    """Unmount the top mount at `target`, lazily, as a dying monitor may hold a file for a moment more; False where
    nothing is mounted there."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):  # EINVAL: not a mount point (umount(2))
            return False
        raise OSError(number, os.strerror(number), target)
    return True


def mount_points(mountinfo: str, root: str) -> list[str]:
    """Mount points below `root` out of the text of /proc/self/mountinfo (proc(5)), the last mounted first."""
    found = []
    for line in mountinfo.splitlines():
        # Spaces, tabs, newlines and backslashes are written as octal escapes.
        point = line.split(" ")[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
        if point.startswith(f"{root}/"):
            found.append(point)
    return found[::-1]


def unmount_all(root: Path) -> None:
    """Unmount everything at and below `root`, however often it was mounted; blocks; harmless when nothing is.

    Raises OSError for anything but "not mounted".
    """
    target = os.fspath(root)
    if _unmount(target):
        # A lazy unmount takes what is mounted below along.
        while _unmount(target):
            pass
        return
    for point in mount_points(Path("/proc/self/mountinfo").read_text(), target):
        _unmount(point)


def unchanged_layers(mounts: Sequence[Mount]) -> tuple[Path, ...]:
    """The lower directories of an overlay mount, uppermost first, where nothing was put over them yet; blocks."""
    if len(mounts) != 1 or mounts[0].type != "overlay" or mounts[0].target.strip("/"):
        return ()
    options = dict(option.partition("=")[::2] for option in mounts[0].options)
    upper = options.get("upperdir")
    try:
        if upper and any(Path(upper).iterdir()):
            return ()
    except OSError:
        return ()
    # A colon in a directory's name is escaped (Documentation/filesystems/overlayfs.rst): such layers are not named.
    lower = options.get("lowerdir", "")
    return tuple(map(Path, lower.split(":"))) if lower and "\\" not in lower else ()


def block_device(mounts: Sequence[Mount]) -> Path | None:
    """The block device that the root file system is, where it is one and nothing else is mounted; blocks."""
    if len(mounts) != 1 or mounts[0].target.strip("/") or not mounts[0].source.startswith("/dev/"):
        return None
    source = Path(mounts[0].source)
    return source if source.is_block_device() else None


def bind(source: Path, target: Path) -> None:
    """Bind `source` to the existing `target`; blocks. `unmount_all(target)` is the inverse."""
    _mount(os.fspath(source), os.fspath(target), "", _MS_BIND, "")
