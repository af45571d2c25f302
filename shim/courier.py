"""`containerd-shim-unikernel-v2`: the binary containerd executes per container, and again to clean up.

It decides nothing but whom to ask: the node's daemon, or with `grouping = "pod"` the pod's own. Its argv, environment,
working directory and stdin go to that daemon over the ttrpc socket; the bytes that come back are printed. If no daemon
answers it starts one, and of many couriers at once exactly one does.

Imports only what costs nothing: containerd waits for this program once per pod. So the socket is the bare `_socket`
one, and the few bytes of ttrpc and protobuf are made by hand (the contract is `protos/courier.proto`). What only some
runs need is imported by these.
"""

# The C modules behind socket, fcntl and time: importing `socket` alone doubles this program's run time.
import _socket
import os
import sys
import time

_SERVICE = b"io.unikernel.shim.v1.Bootstrap"
_METHOD = b"Run"
_REQUEST, _RESPONSE = 1, 2  # ttrpc message types (containerd/ttrpc, PROTOCOL.md)
_LIMIT = 4 << 20  # ttrpc's largest message
_STARTING = 15.0  # seconds a daemon may take to answer
_ANSWER = 120.0  # seconds a request may take: `delete` waits for a process to die
_ATTEMPTS = 5  # daemons to ask: one that is about to end closes the connection
_LOG_LIMIT = 16 << 20  # bytes of log that a new daemon adds to; beyond, it begins a new file
_SANDBOX = "io.kubernetes.cri.sandbox-id"  # the annotation by which containerd's CRI plugin says a container's pod
_NO_POD = "/"  # what stands for the pod of a request that concerns none


class Failure(Exception):
    """What containerd is told on stderr."""


class Ended(Failure):
    """The daemon went away without an answer. Both `start` and `delete` can be repeated, so another is asked."""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a protobuf message: varints as int, length-delimited as bytes."""
    found: list[tuple[int, int | bytes]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
        elif tag & 7 == 2:
            length = varint()
            found.append((tag >> 3, data[position : position + length]))
            position += length
        else:
            raise Failure("the daemon's answer cannot be read")
    return found


def request(argv: list[bytes], environment: dict[bytes, bytes], cwd: bytes, stdin: bytes) -> bytes:
    """A ttrpc frame that carries one CourierRequest."""
    payload = b"".join(_field(1, word) for word in argv)
    payload += b"".join(_field(2, name + b"=" + value) for name, value in environment.items())
    payload += _field(3, cwd) + _field(4, stdin)
    message = _field(1, _SERVICE) + _field(2, _METHOD) + _field(3, payload)
    return len(message).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([_REQUEST, 0]) + message


def reply(message: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr out of a ttrpc Response with a CourierReply."""
    payload = b""
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            status = dict(_fields(value))
            if status.get(1):
                text = status.get(2, b"")
                raise Failure(text.decode(errors="replace") if isinstance(text, bytes) else "the daemon refused")
        elif number == 2 and isinstance(value, bytes):
            payload = value
    fields = dict(_fields(payload))
    code, out, err = fields.get(1, 0), fields.get(2, b""), fields.get(3, b"")
    return (
        code if isinstance(code, int) else 1,
        out if isinstance(out, bytes) else b"",
        err if isinstance(err, bytes) else b"",
    )


def settings(path: str) -> tuple[str, bool]:
    """run_dir, and whether each pod has a daemon of its own. The file is read in full, and judged, by the daemon only.

    Raises Failure where it must be understood and cannot be.
    """
    run_dir = "/run/unikernel-shim"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs as much as the rest of this program
            text = file.read()
    except OSError:
        return run_dir, False
    found = _plain_settings(text)
    if found is None:
        import tomllib

        try:
            found = tomllib.loads(text.decode())
        except ValueError as error:
            raise Failure(f"the configuration cannot be read: {path}: {error}") from None
    return str(found.get("run_dir", run_dir)), found.get("grouping") == "pod"


def _plain_settings(text: bytes) -> "dict[str, str] | None":
    """run_dir and grouping of a TOML text in which each is a line of its own with a plain string, as nearly all have
    them; None for any other text. The parser of TOML costs more than the rest of this program."""
    found: dict[str, str] = {}
    if b'"""' in text or b"'''" in text:
        return None  # their lines are no lines
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(b"["):
            return found  # the tables: what concerns us comes before them
        if line.startswith(b"#") or not (b"run_dir" in line or b"grouping" in line):
            continue
        key, _, value = line.partition(b"=")
        name, value = key.strip().decode(errors="replace"), value.strip()
        quote = value[:1]
        inner, closed, rest = value[1:].partition(quote) if quote else (b"", b"", b"")
        plain = (
            quote in (b'"', b"'") and closed and b"\\" not in inner and (not rest.strip() or rest.lstrip()[:1] == b"#")
        )
        if name not in ("run_dir", "grouping") or not plain or name in found:
            return None
        try:
            found[name] = inner.decode()
        except UnicodeDecodeError:
            return None
    return found


def pod_directory(run_dir: str, pod: str) -> str:
    """The run directory of the daemon of `pod`, NAMESPACE/ID. Short: a unix socket's path has 107 bytes (unix(7))."""
    import _blake2  # hashlib costs more, for hashes of OpenSSL's

    name = _blake2.blake2b(pod.encode(), digest_size=8).hexdigest()
    return os.path.join(run_dir, "pods", name)  # noqa: PTH118


def pod_of(argv: list[str], namespace: str, cwd: str, run_dir: str) -> str:
    """The pod, NAMESPACE/ID, of the container that a command line is about; `namespace` is the environment's.

    That is what the bundle says; a container that is in no pod is one itself. Where the bundle is gone, the pod whose
    journal knows the container. `/` for a command line about no container, or one that no daemon would accept.
    """
    namespace = _flag(argv, "namespace") or namespace
    container = _flag(argv, "id")
    if not (_is_identifier(namespace) and _is_identifier(container)):
        return _NO_POD
    own = f"{namespace}/{container}"
    try:
        with open(os.path.join(_flag(argv, "bundle") or cwd, "config.json"), "rb") as file:  # noqa: PTH118, PTH123
            sandbox = sandbox_in(file.read())
    except OSError:
        return _known(run_dir, namespace, container) or own
    return f"{namespace}/{sandbox}" if sandbox else own


def _flag(argv: list[str], name: str) -> str:
    """A flag's value, as Go's flag package reads it; "" without."""
    for position, word in enumerate(argv):
        if word in (f"-{name}", f"--{name}"):
            return argv[position + 1] if position + 1 < len(argv) else ""
        if word.startswith((f"-{name}=", f"--{name}=")):
            return word.partition("=")[2]
    return ""


def _is_identifier(value: object) -> bool:
    """Whether containerd would take it for a namespace or an id; the rule is that of shim/sandbox/identifiers.py."""
    if not isinstance(value, str) or not value.isascii() or len(value) > 76:
        return False
    return all(part.isalnum() for part in value.replace("_", ".").replace("-", ".").split("."))


def sandbox_in(config: bytes) -> str:
    """The sandbox that an OCI configuration names, "" where it names none: what is wrong with one, the daemon says."""
    import json

    try:
        found = json.loads(config)
    except (ValueError, RecursionError):
        return ""
    annotations = found.get("annotations") if isinstance(found, dict) else None
    sandbox = annotations.get(_SANDBOX) if isinstance(annotations, dict) else None
    return sandbox if isinstance(sandbox, str) and _is_identifier(sandbox) else ""


def _known(run_dir: str, namespace: str, container: str) -> str:
    """The pod whose daemon, alive or dead, has the container in its journal; "" when there is none."""
    pods = os.path.join(run_dir, "pods")  # noqa: PTH118
    try:
        names = os.listdir(pods)  # noqa: PTH208
    except OSError:
        return ""
    for name in names:
        if os.path.exists(os.path.join(pods, name, "journal", f"{namespace}@{container}.json")):  # noqa: PTH110, PTH118
            try:
                with open(os.path.join(pods, name, "pod")) as file:  # noqa: PTH118, PTH123
                    return file.read().strip()
            except OSError:
                continue
    return ""


def _connect(path: str) -> _socket.socket | None:
    """A connection, or None when nobody answers there."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise Failure(f"the daemon cannot be reached at {path}: {error.strerror}") from None
    return connection


class Daemon:
    """The daemon to ask: where it is met, where it writes its log, how it is started."""

    def __init__(self, run_dir: str, pod: str = "") -> None:
        """`pod` is the one whose daemon is meant, NAMESPACE/ID; without, it is the node's."""
        self._run_dir = run_dir
        self._directory = pod_directory(run_dir, pod) if pod else run_dir
        self._socket = os.path.join(self._directory, "shim.ttrpc")  # noqa: PTH118
        self._lock = os.path.join(self._directory, "lock")  # noqa: PTH118
        self._log = os.path.join(run_dir, "daemon.log")  # noqa: PTH118
        self._pod = pod

    def connect(self) -> _socket.socket:
        """A connection to it; it is started if need be. Raises Failure."""
        return _connect(self._socket) or self._start()

    def _start(self) -> _socket.socket:
        """Start it unless another courier is about to, and connect to it once it answers."""
        lock = self._locked()
        try:
            # Whoever had the lock before may have started it.
            connection = _connect(self._socket)
            if connection is not None:
                return connection
            try:
                return self._started()
            except Failure:
                self._leave()
                raise
        finally:
            os.close(lock)

    def _locked(self) -> int:
        """The lock, held: of the directory that is there now. A pod's daemon removes both when it ends."""
        import fcntl

        while True:
            for directory in (self._run_dir, os.path.dirname(self._directory), self._directory):  # noqa: PTH120
                os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103
            try:
                lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, self._lock):
                return lock
            os.close(lock)

    def _leave(self) -> None:
        """Remove the directory of a pod's daemon that could not be started, if there is nothing in it."""
        if self._pod:
            try:
                os.unlink(self._lock)  # noqa: PTH108
                os.rmdir(self._directory)  # noqa: PTH106
            except OSError:
                return

    def _started(self) -> _socket.socket:
        command = _serve_command() + (["--pod", self._pod] if self._pod else [])
        already = _log_size(self._log)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise Failure(f"the daemon cannot be started: {command[0]}: {error.strerror}") from None
        deadline = time.monotonic() + _STARTING
        while time.monotonic() < deadline:
            connection = _connect(self._socket)
            if connection is not None:
                return connection
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                if not code:
                    raise Ended("the daemon ended before it could be asked")
                words = _last_line(self._log, already)
                raise Failure(f"the daemon ended with status {code}: {words} (see {self._log})")
            time.sleep(0.01)
        raise Failure(f"the daemon did not answer within {_STARTING:g} s; see {self._log}")


def _is_at(descriptor: int, path: str) -> bool:
    """Whether the open file is the one that is at `path` now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False


def _serve_command() -> list[str]:
    """The daemon's command: beside this program, where one installation puts both."""
    named = os.environ.get("UNIKERNEL_SHIM_DAEMON")
    if named:
        return [named, "serve"]
    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "unikernel-shim")  # noqa: PTH118, PTH120
    return [beside, "serve"]


def _log_size(path: str) -> int:
    """The log's size; one that has become too large makes way for a new one first, and is kept until the next does."""
    import fcntl

    log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Couriers of other pods are here too, and the old log is lost where two of them move one away.
        fcntl.flock(log, fcntl.LOCK_EX)
        size = os.fstat(log).st_size
        if size <= _LOG_LIMIT or not _is_at(log, path):
            return size
        os.rename(path, f"{path}.1")  # noqa: PTH104
        return 0
    finally:
        os.close(log)


def _last_line(path: str, already: int) -> str:
    """What a daemon said last, which is why it ended; before it there were `already` bytes.

    Why it could not start it says in plain words. Other pods' daemons write there too, each line an object.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(max(already, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return "no word of it"
    plain = [line for line in lines if not line.startswith("{")] or lines
    return plain[-1] if plain else "no word of it"


def _receive(connection: _socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise Failure("the daemon closed the connection") if data else Ended("the daemon closed the connection")
        data += chunk
    return data


def _stdin() -> bytes:
    if os.isatty(0):
        return b""
    data = b""
    try:
        while chunk := os.read(0, 65536):
            data += chunk
    except OSError:
        return b""
    return data


def _ask(connection: _socket.socket, frame: bytes) -> tuple[int, bytes, bytes]:
    """One request and its reply. Raises Ended when there was none, Failure."""
    connection.settimeout(_ANSWER)
    try:
        while frame:
            frame = frame[connection.send(frame) :]
        header = _receive(connection, 10)
        length = int.from_bytes(header[:4], "big")
        if header[8] != _RESPONSE or length > _LIMIT:
            raise Failure("the daemon's answer cannot be read")
        return reply(_receive(connection, length))
    except (BrokenPipeError, ConnectionResetError):
        raise Ended("the daemon closed the connection") from None
    except TimeoutError:
        raise Failure(f"the daemon did not answer within {_ANSWER:g} s") from None
    finally:
        connection.close()


def _run() -> tuple[int, bytes, bytes]:
    run_dir, grouped = settings(os.environ.get("UNIKERNEL_SHIM_CONFIG") or "/etc/unikernel-shim/config.toml")
    cwd = os.getcwdb()  # noqa: PTH109
    frame = request([os.fsencode(word) for word in sys.argv], dict(os.environb), cwd, _stdin())
    pod = pod_of(sys.argv[1:], os.environ.get("NAMESPACE", ""), os.fsdecode(cwd), run_dir) if grouped else ""
    daemon = Daemon(run_dir, pod)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _ask(daemon.connect(), frame)
        except Ended:
            continue
    return _ask(daemon.connect(), frame)


def main() -> int:
    """Run once; the return value is the exit code."""
    try:
        code, out, err = _run()
    except (Failure, OSError) as error:
        code, out, err = 1, b"", f"containerd-shim-unikernel-v2: {error}\n".encode()
    os.write(1, out)
    os.write(2, err)
    return code


if __name__ == "__main__":
    sys.exit(main())
