"""A guest of `unikernel-shim run` in a layout's pod, and what the others of the layout see of it over HTTP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration import acceleration, guest, paths
from tests.integration.layouts.namespaces import NAMED


@contextmanager
def running(directory: Path, netns: str, *words: str | Path, accelerator: str = "auto") -> Iterator[Path]:
    """`unikernel-shim run --netns NETNS WORDS…` under a configuration of its own in `directory`; gives the console's
    file as soon as the guest says that it is ready, and ends it with SIGTERM."""
    config, console = directory / "config.toml", directory / "console"
    config.write_text(
        f'run_dir = "{directory}/run"\n[storage]\ndirectory = "{directory}/storage"\n'
        f'[monitors.qemu]\naccel = "{accelerator}"\n'
    )
    acceleration.lend(directory / "run")
    program = (paths.BIN / "python3", "-m", "shim.cli.main", "--config", config)
    command = (*program, "run", "--netns", netns, "--cmdline", guest.WORDS, *words)
    with console.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        guest.wait_ready(console, process)
        yield console
    finally:
        process.terminate()
        process.wait(20)
        acceleration.keep(directory / "run")


def request(namespace: str, address: str, path: str, body: bytes | None = None, *, timeout: float = 20) -> bytes:
    """What the guest at `address` answers to a GET, or to a POST of `body`, from a namespace. Raises AssertionError."""
    command = ("nsenter", f"--net={NAMED / namespace}", "--", "python3", "-ISc", _REQUEST)
    method = "GET" if body is None else "POST"
    done = subprocess.run(
        (*command, address, method, path, str(timeout)), input=body or b"", capture_output=True, check=False
    )
    assert done.returncode == 0, f"{method} {path} of {address}: {done.stderr.decode().strip()}"
    return done.stdout


_REQUEST = """
import http.client, sys
address, method, path, timeout = sys.argv[1:]
connection = http.client.HTTPConnection(address, 80, timeout=float(timeout))
connection.request(method, path, sys.stdin.buffer.read() if method == "POST" else None)
sys.stdout.buffer.write(connection.getresponse().read())
"""


def eventually(attempt: Callable[[], bool], *, within: float = 5.0) -> bool:
    """Whether it comes true in that many seconds."""
    deadline = time.monotonic() + within
    while not attempt():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
