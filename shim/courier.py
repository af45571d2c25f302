"""`containerd-shim-unikernel-v2`: the binary containerd executes per container, and again to clean up.

It decides nothing. Its argv, environment, working directory and stdin go to the daemon over the ttrpc socket; the
bytes that come back are printed. If no daemon answers it starts one, and of many couriers at once exactly one does.

Imports only what costs nothing: containerd waits for this program once per pod. So the socket is the bare `_socket`
one, and the few bytes of ttrpc and protobuf are made by hand (the contract is `protos/courier.proto`).
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


class Failure(Exception):
    """What containerd is told on stderr."""


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


def _run_dir() -> str:
    """The daemon's run_dir: from the configuration file, which is read in full only by the daemon."""
    path = os.environ.get("UNIKERNEL_SHIM_CONFIG") or "/etc/unikernel-shim/config.toml"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs as much as the rest of this program
            text = file.read()
    except OSError:
        return "/run/unikernel-shim"
    if b"run_dir" in text:
        import tomllib

        try:
            return str(tomllib.loads(text.decode()).get("run_dir", "/run/unikernel-shim"))
        except ValueError as error:
            raise Failure(f"the configuration cannot be read: {path}: {error}") from None
    return "/run/unikernel-shim"


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


def _serve_command() -> list[str]:
    """The daemon's command: beside this program, where one installation puts both."""
    named = os.environ.get("UNIKERNEL_SHIM_DAEMON")
    if named:
        return [named, "serve"]
    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "unikernel-shim")  # noqa: PTH118, PTH120
    return [beside, "serve"]


def _last_line(path: str) -> str:
    """What the daemon said last, which is why it ended."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            lines = file.read()[-4096:].decode(errors="replace").strip().splitlines()
    except OSError:
        return "no word of it"
    return lines[-1] if lines else "no word of it"


def _start_daemon(run_dir: str, path: str) -> _socket.socket:
    """Start the daemon unless another courier is about to, and connect to it once it answers."""
    import fcntl

    os.makedirs(run_dir, mode=0o700, exist_ok=True)  # noqa: PTH103
    lock = os.open(os.path.join(run_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # noqa: PTH118
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever had the lock before may have started it.
        connection = _connect(path)
        if connection is not None:
            return connection
        log = os.path.join(run_dir, "daemon.log")  # noqa: PTH118
        command = _serve_command()
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise Failure(f"the daemon cannot be started: {command[0]}: {error.strerror}") from None
        deadline = time.monotonic() + _STARTING
        while time.monotonic() < deadline:
            connection = _connect(path)
            if connection is not None:
                return connection
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                raise Failure(f"the daemon ended with status {code}: {_last_line(log)} (see {log})")
            time.sleep(0.01)
        raise Failure(f"the daemon did not answer within {_STARTING:g} s; see {log}")
    finally:
        os.close(lock)


def _receive(connection: _socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise Failure("the daemon closed the connection")
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


def _ask(frame: bytes) -> tuple[int, bytes, bytes]:
    run_dir = _run_dir()
    path = os.path.join(run_dir, "shim.ttrpc")  # noqa: PTH118
    connection = _connect(path) or _start_daemon(run_dir, path)
    connection.settimeout(_ANSWER)
    try:
        while frame:
            frame = frame[connection.send(frame) :]
        header = _receive(connection, 10)
        length = int.from_bytes(header[:4], "big")
        if header[8] != _RESPONSE or length > _LIMIT:
            raise Failure("the daemon's answer cannot be read")
        return reply(_receive(connection, length))
    except TimeoutError:
        raise Failure(f"the daemon did not answer within {_ANSWER:g} s") from None
    finally:
        connection.close()


def main() -> int:
    """Run once; the return value is the exit code."""
    try:
        frame = request([os.fsencode(word) for word in sys.argv], dict(os.environb), os.getcwdb(), _stdin())  # noqa: PTH109
        code, out, err = _ask(frame)
    except (Failure, OSError) as error:
        code, out, err = 1, b"", f"containerd-shim-unikernel-v2: {error}\n".encode()
    os.write(1, out)
    os.write(2, err)
    return code


if __name__ == "__main__":
    sys.exit(main())
