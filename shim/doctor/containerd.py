"""containerd itself: asked for its version, looked up in /proc for what it was started with, its files read."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shim import config
from shim import courier as installed
from shim.doctor import stanzas
from shim.doctor.containerd_config import Courier
from shim.doctor.containerd_settings import Settings, Source, Table, Version, string, subtable
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen, words
from shim.errors import ShimError
from shim.monitors import version
from shim.monitors.base import Run
from shim.rpc import unix
from shim.rpc.forward import ask_version
from shim.services.versions import parse

#: The file of a containerd that is told of no other (containerd(8)).
DEFAULT_CONFIG: Final = Path("/etc/containerd/config.toml")
#: Where its plugin `opt` puts programs that it then finds first (containerd, plugins/services/opt).
_OPT: Final = Path("/opt/containerd")
_TIMEOUT = 3.0  # seconds; a containerd that works answers within milliseconds
_OLD_PATTERNS = ((1, 5), (1, 6))
_FILES = 100  # more than anybody imports, fewer than a link to everything
_LARGE = 4 << 20  # bytes
#: The oldest and the newest line that was run (docs/compatibility.md).
_OLDEST, _NEWEST = (1, 6), (2, 3)


class Containerd(msgspec.Struct, frozen=True, kw_only=True):
    """`refusal` says why it does not answer, `closed` that it is not ours to ask. `version` is its own word; where
    there is none, `installed` is that of the program on PATH. `pid` is 0 where its process is not known, and the others
    are then guesses: its configuration, its PATH, its own program's directory, and what of its environment couriers
    inherit."""

    address: Path
    refusal: str = ""
    closed: bool = False
    version: str = ""
    installed: str = ""
    pid: int = 0
    config: Path = DEFAULT_CONFIG
    path: str = ""
    beside: str = ""
    environment: Mapping[str, str] = {}

    @property
    def line(self) -> Version:
        """Major and minor; (0, 0) where it is not known."""
        return parse(self.version) if self.version else version.parse(self.installed) or (0, 0)


async def observe(address: Path, run: Run) -> Containerd:
    """Ask the containerd at `address`, and look up its process. Where nobody answers, the program on PATH is asked."""
    try:
        pid = await asyncio.to_thread(_listener, address)
    except OSError as error:
        silent = Containerd(address=address, refusal=words(error), closed=isinstance(error, PermissionError))
        return msgspec.structs.replace(silent, path=_own_path(), installed=await _installed(run))
    refusal = said = ""
    try:
        said = await ask_version(os.fspath(address))
    except ShimError as error:
        refusal = words(error)
    return msgspec.structs.replace(_process(address, pid), refusal=refusal, version=said)


def _own_path() -> str:
    return os.environ.get("PATH", os.defpath)


async def _installed(run: Run) -> str:
    program = await asyncio.to_thread(shutil.which, "containerd")
    if program is None:
        return ""
    try:
        # "containerd MODULE VERSION REVISION"
        said = await version.says(Path(program), "containerd", run)
    except (ShimError, OSError):
        return ""
    return next((word for word in said.split() if version.parse(word)), "")


def _listener(address: Path) -> int:
    """The process that listens there: what SO_PEERCRED says of a connection is of then. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(os.fspath(address))
        return unix.peer(connection)[0]


def _process(address: Path, pid: int, proc: Path = Path("/proc")) -> Containerd:
    directory = proc / str(pid)
    try:
        argv = [os.fsdecode(word) for word in (directory / "cmdline").read_bytes().split(b"\0")]
        pairs = (os.fsdecode(pair).partition("=") for pair in (directory / "environ").read_bytes().split(b"\0"))
        environment = {name: value for name, _, value in pairs if name}
        beside = (directory / "exe").readlink().parent
        here = (directory / "cwd").readlink()
    except OSError:  # another user's, or in another process namespace
        return Containerd(address=address, path=_own_path())
    if pid == 1:  # systemd listens in its name, and starts it when it is asked
        return Containerd(address=address, path=_own_path())
    return Containerd(
        address=address,
        pid=pid,
        config=here / (_option(argv, "config", "c") or DEFAULT_CONFIG),
        path=environment.get("PATH", ""),
        beside=os.fspath(beside),
        environment=environment,
    )


def _option(argv: Sequence[str], *names: str) -> str:
    """An option's value in a command line of Go's flag package; "" without."""
    flags = {f"{dashes}{name}" for name in names for dashes in ("-", "--")}
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else next(iter(argv[position + 1 : position + 2]), "")
    return ""


def read(main: Path, line: Version) -> tuple[Source, ...]:
    """A configuration and what it imports, in the order of a containerd of that line: files named by a file follow all
    that were named before. Blocks. A file that cannot be read is among them, with the reason."""
    pending, found = [main], dict[Path, Source]()
    while pending and len(found) < _FILES:
        path = pending.pop(0)
        if path not in found:
            found[path] = _read(path, named=path == main)
            pending += _imports(found[path], line)
    return tuple(found.values())


def _read(path: Path, *, named: bool) -> Source:
    try:
        if path.exists() and not path.is_file():
            return Source(path, error="it is no file")
        with path.open("rb") as file:
            return Source(path, tomllib.loads(file.read(_LARGE).decode()))
    except FileNotFoundError:
        return Source(path) if named else Source(path, error="it is imported, and not there")
    except OSError as error:
        return Source(path, error=words(error), closed=isinstance(error, PermissionError))
    except (ValueError, RecursionError) as error:
        return Source(path, error=str(error) or "it is too deep")


def _imports(source: Source, line: Version) -> list[Path]:
    """Patterns with a star are taken as such, others as names; both from the file's directory on. 1.6 takes patterns
    from where it was started on, which for a service is the root."""
    wanted = (source.table or {}).get("imports")
    found: list[Path] = []
    for word in wanted if isinstance(wanted, list) else ():
        if not isinstance(word, str) or not word or "\0" in word:
            continue
        start = Path("/") if line in _OLD_PATTERNS and "*" in word else source.path.parent
        path = Path(os.path.normpath(start / word))
        found += sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    return found


def find_courier(seen: Containerd, settings: Settings) -> Courier:
    """The shim binary that it would run; blocks."""
    opt = next((own for each in settings.sources if (own := _opt(each.table or {}))), _OPT)
    places = os.pathsep.join((os.fspath(opt / "bin"), seen.path, seen.beside))
    path = shutil.which(stanzas.COURIER, path=places)
    if path is None:
        return Courier()
    try:
        text = Path(path).read_bytes()
        ours = Path(installed.__file__).read_bytes()
    except OSError as error:
        return Courier(path=path, fault=words(error))
    first = text.partition(b"\n")[0].decode(errors="replace")
    interpreter = first.removeprefix("#!").split(" ")[0]
    if not first.startswith("#!") or not os.access(interpreter, os.X_OK):
        return Courier(path=path, runs=False, fault=f"its interpreter {interpreter!r} is not there")
    return Courier(path=path, fault="" if _body(text) == _body(ours) else "it is another version's")


def _opt(table: Table) -> Path | None:
    path = string(subtable(table, "plugins", "io.containerd.internal.v1.opt"), "path")
    return Path(path) if path else None


def _body(text: bytes) -> list[bytes]:
    """A program less its first line, which an installation writes for its interpreter (contrib/install/place.sh)."""
    return [line for line in text.splitlines() if not line.startswith(b"#!")]


def judge(seen: Containerd, courier: Courier, run_dir: Path, couriers: bool) -> list[Finding]:
    """What is to be said beside its configuration. `run_dir` is the service's; `couriers` is whether any handler has
    the shim binary run."""
    return [_answer(seen), *_shim(seen, courier, couriers), *_run_dir(seen, run_dir, couriers)]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.CONTAINERD, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


def _answer(seen: Containerd) -> Finding:
    if seen.closed:
        return unseen(Area.CONTAINERD, "version", f"{seen.address} is root's, and this is not root", AS_ROOT)
    if seen.refusal:
        why = "it makes the pods; it may listen elsewhere (containerd.address, --containerd)"
        fix = "systemctl enable --now containerd; journalctl -u containerd"
        return _finding("version", Outcome.BAD, f"nobody answers on {seen.address}: {seen.refusal}", why, fix)
    what = f"{seen.version}, on {seen.address}"
    if seen.line == (0, 0):
        return _finding("version", Outcome.DOUBTFUL, f"{what}: not a version", "what differs by version is not known")
    if seen.line < _OLDEST:
        why = f"the oldest that was run is {_dotted(_OLDEST)}"
        return _finding("version", Outcome.BAD, what, why, "apt-get install containerd")
    if seen.line > _NEWEST:
        why = f"the newest that is known is {_dotted(_NEWEST)}"
        return _finding("version", Outcome.DOUBTFUL, what, why, "see docs/compatibility.md")
    return _finding("version", Outcome.GOOD, what)


def _dotted(line: Version) -> str:
    return ".".join(map(str, line))


def _shim(seen: Containerd, courier: Courier, couriers: bool) -> list[Finding]:
    where = "containerd's PATH" if seen.pid else "the PATH here (containerd's is not known)"
    if not courier.path:
        outcome = Outcome.DOUBTFUL if couriers else Outcome.ABSENT
        why = "handlers with the sandboxer shim or podsandbox have it run for each pod"
        return [_finding("shim binary", outcome, f"{stanzas.COURIER} is not on {where}", why, "make install")]
    if courier.fault:
        why = "containerd runs it for each pod of handlers that have no sandbox plugin"
        return [_finding("shim binary", Outcome.DOUBTFUL, f"{courier.path}: {courier.fault}", why, "make install")]
    return [_finding("shim binary", Outcome.GOOD, f"{courier.path}, on {where}")]


def _run_dir(seen: Containerd, run_dir: Path, couriers: bool) -> list[Finding]:
    """Whether couriers, who inherit containerd's environment, ask the service that this is about."""
    if not seen.pid or not couriers:
        return []
    file = config.named(None, seen.environment)
    try:
        theirs = Path(installed.settings(os.fspath(file))[0])
    except installed.Failure as error:
        said = str(error)
    else:
        if theirs == run_dir:
            return []
        said = f"by {file}, the run directory is {theirs}, and by the configuration here {run_dir}"
    why = "the shim binary reads the file that containerd's environment names, and asks the service there"
    fix = f"set {config.VARIABLE} for containerd (systemctl edit containerd), or name that file here with --config"
    return [_finding("configuration of couriers", Outcome.DOUBTFUL, said, why, fix)]
