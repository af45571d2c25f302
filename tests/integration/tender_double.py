"""A double of Solo5's tender `solo5-spt` and of a guest on it, for machines without one: no registry has a tender.

It takes the real one's command line (0.9's: taps by descriptor), starts in some ten milliseconds, and its guest answers
ARP, ping and UDP's echo (RFC 862) at the address that it is told. What needs a real guest is tested with the Linux
guest under QEMU, what needs a real tender with the tender on PATH (test_monitors.py, test_cli.py).

The words of its guest, from the container's arguments:

    address=A.B.C.D   answer there, on the first NIC
    say=TEXT          a line on the console (stdout); say as often as wanted
    lines=COUNT       so many lines on the console: 0, 1, 2...
    long=BYTES        a line of so many x on the console
    complain=TEXT     a line on stderr, where only the monitor speaks
    echo              repeat on the console what comes on stdin, line by line
    memory=MIB        touch so much memory
    after=SECONDS     end by itself
    exit=CODE         with that code
    term=ignore       take no notice of SIGTERM, SIGINT and SIGHUP; term=CODE: end with that code on them
    {...}             repeated on the console, and then the end: it is a rumprun guest that was told so
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.images import Image
from tests.unit.oci import elf

REFERENCE = "localhost/solo5:test"
KERNEL_PATH = "/unikernel/kernel.spt"

_PROGRAM = """#!/usr/bin/python3 -IS
import os, select, signal, struct, sys, time

if "--version" in sys.argv:
    print("solo5-spt version v0.9.3 (a double)")
    sys.exit(0)
tap, mac, words = None, b"", sys.argv[sys.argv.index("--") + 2:]
for option in sys.argv[1:sys.argv.index("--")]:
    name, _, value = option.partition("=")
    if name.startswith("--net:") and tap is None:
        tap = int(value.lstrip("@"))
    if name.startswith("--net-mac:") and not mac:
        mac = bytes.fromhex(value.replace(":", ""))
address, after, code, echo, kept = b"", None, 0, False, []
for word in words:
    name, _, value = word.partition("=")
    if word.startswith("{"):
        print(word, flush=True)
        after = time.monotonic()
    if name == "address":
        address = bytes(map(int, value.split(".")))
    elif name == "say":
        print(value, flush=True)
    elif name == "lines":
        print("\\n".join(map(str, range(int(value)))), flush=True)
    elif name == "long":
        print("x" * int(value), flush=True)
    elif name == "complain":
        print(value, file=sys.stderr, flush=True)
    elif name == "echo":
        echo = True
    elif name == "memory":
        for _ in range(int(value)):
            kept.append(b"x" * (1 << 20))
    elif name == "after":
        after = time.monotonic() + float(value)
    elif name == "exit":
        code, after = int(value), after or time.monotonic()
    elif name == "term":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            act = signal.SIG_IGN if value == "ignore" else lambda *_: os._exit(int(value))
            signal.signal(number, act)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def answer(frame):
    kind = frame[12:14]
    if kind == b"\\x08\\x06" and frame[20:22] == b"\\0\\1" and frame[38:42] == address:
        head = frame[6:12] + mac + frame[12:20]
        return head + b"\\0\\2" + mac + address + frame[22:32]
    if kind == b"\\x08\\0" and frame[23] == 1 and frame[30:34] == address and frame[34] == 8:
        size = struct.unpack("!H", frame[16:18])[0]
        data = b"\\0\\0\\0\\0" + frame[38:14 + size]
        data = b"\\0\\0" + checksum(data) + data[4:]
        return frame[6:12] + mac + frame[12:26] + address + frame[26:30] + data
    if kind == b"\\x08\\0" and frame[23] == 17 and frame[30:34] == address and frame[36:38] == b"\\0\\7":
        size = struct.unpack("!H", frame[16:18])[0]
        data = frame[36:38] + frame[34:36] + frame[38:40] + b"\\0\\0" + frame[42:14 + size]
        return frame[6:12] + mac + frame[12:26] + address + frame[26:30] + data
    return None


sources = [tap] if tap is not None and address else []
if echo:
    sources.append(0)
while after is None or time.monotonic() < after:
    left = None if after is None else max(after - time.monotonic(), 0)
    ready = select.select(sources, (), (), left)[0]
    if tap in ready:
        try:
            reply = answer(os.read(tap, 65536))
            if reply:
                os.write(tap, reply)
        except OSError:
            sources.remove(tap)
    if echo and 0 in ready:
        line = os.read(0, 65536)
        if not line:
            sources.remove(0)
        else:
            os.write(1, line)
sys.exit(code)
"""


def place(directory: Path) -> Path:
    """Write the program into `directory`; its path, for `monitors.spt.path`."""
    path = directory / "solo5-spt"
    path.write_text(_PROGRAM)
    path.chmod(0o755)
    return path


def configuration(directory: Path) -> str:
    """TOML that makes a daemon use the double as both tenders; it is written into `directory`."""
    program = place(directory)
    return "".join(f'\n[monitors.{tender}]\npath = "{program}"\n' for tender in ("spt", "hvt"))


def image(reference: str = REFERENCE, *, nics: int = 1) -> Image:
    """An image whose entry point is a Solo5 kernel for `spt` that asks for so many NICs."""
    names = [f"net{number}".encode() for number in range(nics)]
    return Image(reference, {KERNEL_PATH: elf.solo5(nets=names)}, entrypoint=(KERNEL_PATH,))
