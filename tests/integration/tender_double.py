"""A double of Solo5's tender `solo5-spt` and of a guest on it, for machines without one: no registry has a tender.

It takes the real one's command line (0.9's: taps by descriptor), starts in some ten milliseconds, and its guest answers
ARP, ping and UDP's echo (RFC 862) at the address that it is told. What needs a real guest is tested with the Linux
guest under QEMU, what needs a real tender with the tender on PATH (test_monitors.py, test_cli.py).

The words of its guest, from the container's arguments:

    address=A.B.C.D   answer there, on the first NIC
    told              all its words, on the console
    say=TEXT          a line on the console (stdout); say as often as wanted
    lines=COUNT       so many lines on the console: 0, 1, 2...
    long=BYTES        a line of so many x on the console
    complain=TEXT     a line on stderr, where only the monitor speaks
    echo              repeat on the console what comes on stdin, line by line
    memory=MIB        touch so much memory
    after=SECONDS     end by itself
    exit=CODE         with that code
    blocks            say of each disk its name and first line, and write over that; one that cannot be is the end
    term=ignore       take no notice of SIGTERM, SIGINT and SIGHUP; term=CODE: end with that code on them
    {...}             repeated on the console, and then the end: it is a rumprun guest that was told so
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from tests.integration.doubles import guest
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
if "blocks" in words:
    for option in sys.argv[1:sys.argv.index("--")]:
        name, _, path = option.partition("=")
        if name.startswith("--block:"):
            with open(path, "r+b") as disk:
                print("block", name[8:], disk.readline().decode().strip(), flush=True)
                disk.seek(0)
                disk.write(b"written over\\n")
for word in words:
    name, _, value = word.partition("=")
    if word.startswith("{"):
        print(word, flush=True)
        after = time.monotonic()
    if name == "address":
        address = bytes(map(int, value.split(".")))
    elif name == "told":
        print(" ".join(words), flush=True)
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


@ANSWERING@

sources = [tap] if tap is not None and address else []
if echo:
    sources.append(0)
while after is None or time.monotonic() < after:
    left = None if after is None else max(after - time.monotonic(), 0)
    ready = select.select(sources, (), (), left)[0]
    if tap in ready:
        try:
            reply = answer(os.read(tap, 65536), mac, address)
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
    answering = "\n\n".join(inspect.getsource(function) for function in (guest.checksum, guest.answer))
    path.write_text(_PROGRAM.replace("@ANSWERING@", answering))
    path.chmod(0o755)
    return path


def configuration(directory: Path) -> str:
    """TOML that makes a daemon use the double as both tenders; it is written into `directory`."""
    program = place(directory)
    return "".join(f'\n[monitors.{tender}]\npath = "{program}"\n' for tender in ("spt", "hvt"))


def image(reference: str = REFERENCE, *, nics: int = 1, blocks: Mapping[str, bytes] | None = None) -> Image:
    """An image whose entry point is a Solo5 kernel for `spt` that asks for so many NICs, and for block devices: what is
    to be on them, by name, is in files of these names at the image's top."""
    disks = blocks or {}
    kernel = elf.solo5(nets=[f"net{number}".encode() for number in range(nics)], blocks=[*map(str.encode, disks)])
    files = {f"/{name}": data for name, data in disks.items()}
    return Image(reference, {KERNEL_PATH: kernel, **files}, entrypoint=(KERNEL_PATH,))
