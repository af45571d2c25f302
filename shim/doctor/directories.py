"""The run directory and the storage directory: whether they can be written to, what they are on, and their room."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from shim.config import Config
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen
from shim.errors import InvalidRequest
from shim.rpc.unix import check_path

_MIB: Final = 1 << 20
#: What is written for a trial: more than a journal's record takes.
_TRIAL = 64 << 10
#: Bytes below which a run directory will not do for long: records, logs of engines, FIFOs.
_LITTLE = 4 * _MIB
_IN_MEMORY = ("tmpfs", "ramfs")
_NO_LEAVE = (errno.EACCES, errno.EPERM)


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is what is looked at, `below` the nearest directory that there is: the same, or what it will be made in.
    `mode` and `owner` are its own, None where it is not there; `kind` its file system's; `room` in bytes; `refusal` why
    nothing can be written, "" where it can, and its `number` (errno)."""

    path: Path
    below: Path
    mode: int | None = None
    owner: int | None = None
    kind: str = ""
    room: int = 0
    refusal: str = ""
    number: int = 0


def observe(path: Path) -> Directory:
    """Look at it, and write a file that has no name for long; blocks. Raises OSError where it cannot be looked at."""
    below = next(each for each in (path, *path.parents) if each.exists())
    if not below.is_dir():
        return Directory(path=path, below=below, refusal=os.strerror(errno.ENOTDIR), number=errno.ENOTDIR)
    status = below.stat() if below == path else None
    room = os.statvfs(below)
    number = _write(below)
    return Directory(
        path=path,
        below=below,
        mode=stat.S_IMODE(status.st_mode) if status else None,
        owner=status.st_uid if status else None,
        kind=kind_at(below.stat().st_dev, Path("/proc/self/mountinfo").read_text()),
        room=room.f_bavail * room.f_frsize,
        refusal=os.strerror(number) if number else "",
        number=number,
    )


def _write(directory: Path) -> int:
    """Write to a file that is then gone; the errno of what went wrong, 0 for nothing."""
    try:
        with tempfile.TemporaryFile(prefix=".doctor.", dir=directory, buffering=0) as file:
            file.write(bytes(_TRIAL))
            os.fsync(file.fileno())
            return 0 if file.tell() == _TRIAL else errno.ENOSPC
    except OSError as error:
        return error.errno or errno.EIO


def kind_at(device: int, mountinfo: str) -> str:
    """The file system's name of a device, out of the text of /proc/PID/mountinfo (proc(5)); "" where it is not told, as
    of a btrfs's subvolume."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2:3] == [number]:
            return right.partition(" ")[0]
    return ""


def judge_run(seen: Directory, config: Config, root: bool) -> Finding:
    """Without it the daemon does not start, or starts no pod."""

    def finding(outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
        subject = os.fspath(seen.path)
        return Finding(
            area=Area.STORAGE, subject=subject, outcome=outcome, what=f"run directory: {what}", why=why, fix=fix
        )

    journal = "each pod's journal is written here before anything is done; where it cannot be, no pod starts"
    try:
        check_path(config.grpc_socket)
    except InvalidRequest as error:
        return finding(Outcome.BAD, error.message, "the service cannot make its sockets", error.remedy)
    if seen.refusal:
        return _refused(seen, root, finding(Outcome.BAD, f"cannot be written to: {seen.refusal}", journal))
    if seen.room < _LITTLE:
        fix = f"mount -o remount,size=64M {seen.below}" if seen.kind in _IN_MEMORY else f"free space on {seen.below}"
        return finding(Outcome.DOUBTFUL, f"{seen.room // _MIB} MiB are left", journal, fix)
    if seen.mode is None:
        return finding(Outcome.GOOD, f"the service will make it in {seen.below}, on {seen.kind or 'a disk'}")
    if seen.owner != 0 or seen.mode & 0o077:
        fix = f"chown root {seen.path} && chmod 0700 {seen.path}"
        why = "whoever can open the sockets in it has all pods of the node in hand"
        return finding(Outcome.DOUBTFUL, f"mode {seen.mode:04o}, of user {seen.owner}", why, fix)
    if seen.kind not in _IN_MEMORY:
        why = "what it holds is true until the machine is restarted, and on a disk outlives that"
        return finding(
            Outcome.DOUBTFUL, f"on {seen.kind or 'a disk'}, not tmpfs", why, "set run_dir to a directory in /run"
        )
    return finding(Outcome.GOOD, f"on {seen.kind}, {seen.room // _MIB} MiB left, mode {seen.mode:04o}")


def judge_storage(seen: Directory, config: Config, root: bool) -> Finding:
    """Guests without disks do without it."""

    def finding(outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
        subject = os.fspath(seen.path)
        return Finding(area=Area.STORAGE, subject=subject, outcome=outcome, what=f"storage: {what}", why=why, fix=fix)

    disks = "guests that have a root or volumes as disks cannot start"
    room = config.storage.room
    if seen.refusal:
        return _refused(seen, root, finding(Outcome.DOUBTFUL, f"cannot be written to: {seen.refusal}", disks))
    if seen.kind in _IN_MEMORY:
        why = "images of file systems, which are kept for further pods, take the node's memory"
        return finding(Outcome.DOUBTFUL, f"on {seen.kind}", why, "set storage.directory to a directory on a disk")
    if seen.room < room * _MIB:
        why = f"a root that a guest can write to has room for {room} MiB (storage.room)"
        fix = f"free space on {seen.below}, or set storage.limit and storage.room lower"
        return finding(Outcome.DOUBTFUL, f"{seen.room // _MIB} MiB are left", why, fix)
    will = "" if seen.mode is not None else f"the service will make it in {seen.below}, "
    return finding(Outcome.GOOD, f"{will}on {seen.kind or 'a disk'}, {seen.room // _MIB} MiB left")


def _refused(seen: Directory, root: bool, finding: Finding) -> Finding:
    """What to do where nothing can be written; who is not root has seen nothing by that."""
    if seen.number in _NO_LEAVE and not root:
        return unseen(finding.area, finding.subject, "it is root's, and this is not root", AS_ROOT)
    fixes = {
        errno.EROFS: f"mount -o remount,rw {seen.below}",
        errno.ENOSPC: f"free space on {seen.below}",
        errno.EDQUOT: f"free space on {seen.below}",
        errno.ENOTDIR: f"rm {seen.below}",
    }
    return msgspec.structs.replace(finding, fix=fixes.get(seen.number, f"ls -ld {seen.below}; dmesg | tail"))
