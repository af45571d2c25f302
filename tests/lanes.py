"""All tests, in several processes at once: `python -m tests.lanes LANES [ARGUMENT...]`; the arguments are pytest's.

A test waits most of its time for a guest to boot or a server to answer, and what a run of tests makes is on a node of
its own, known by a token (tests/integration/README.md), so several runs share a machine. Each lane takes the next
stretch of tests when it has done with one. The output of a stretch is shown as a whole, at its end.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
# What takes long is begun first, so that no lane has it left at the end. A module that is not named is only less well
# placed.
_LONG = (
    "integration/test_layouts.py",
    "integration/test_network.py",
    "integration/test_linux_guest.py",
    "integration/test_storage.py",
    "integration/test_pods.py",
    "integration/test_crash_steps.py",
    "integration/test_restart.py",
    "chaos",
    "unit",
)
_TOGETHER = 3  # modules of the others: a pytest and its servers take as long to start as some tests
_NOTHING = 5  # pytest's exit code where there was no test to run (ExitCode.NO_TESTS_COLLECTED)
_STOPPED = 2  # and where it was stopped (ExitCode.INTERRUPTED)


def stretches() -> list[tuple[str, ...]]:
    """What each pytest is to run, by path from the top: every module of tests once."""
    found = [(f"tests/{path}",) for path in _LONG]
    modules = sorted((_ROOT / "tests" / "integration").glob("test_*.py"))
    rest = [f"tests/integration/{path.name}" for path in modules if f"integration/{path.name}" not in _LONG]
    return found + [tuple(rest[at : at + _TOGETHER]) for at in range(0, len(rest), _TOGETHER)]


class Lanes:
    """Stretches that are under way, and how those that were have ended."""

    def __init__(self, wanted: Sequence[tuple[str, ...]], program: Sequence[str], arguments: Sequence[str]) -> None:
        """Each stretch is run as `program`, the stretch, `arguments`."""
        self._wanted: Iterator[tuple[str, ...]] = iter(wanted)
        self._program = program
        self._arguments = arguments
        self._lock = threading.Lock()
        self._stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._codes: list[int] = []

    def run(self, lanes: int) -> int:
        """Run all, so many at once; an exit code as pytest's: 0 where all passed."""
        threads = [threading.Thread(target=self._lane) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._stop()
            for thread in threads:
                thread.join()
            return _STOPPED
        ran = [code for code in self._codes if code != _NOTHING]
        return max(ran, key=abs) if ran else _NOTHING

    def _lane(self) -> None:
        while (stretch := self._next()) is not None:
            begun = time.monotonic()
            with tempfile.TemporaryFile() as output:
                code = self._ended(stretch, output.fileno())
                output.seek(0)
                text = output.read().decode(errors="replace")
            with self._lock:
                self._codes.append(code)
                print(f"== {' '.join(stretch)}: {time.monotonic() - begun:.0f} s\n{text}", flush=True)

    def _next(self) -> tuple[str, ...] | None:
        with self._lock:
            return None if self._stopped else next(self._wanted, None)

    def _ended(self, stretch: tuple[str, ...], output: int) -> int:
        command = [*self._program, *stretch, *self._arguments]
        with self._lock:
            if self._stopped:
                return _STOPPED
            process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.remove(process)
        return code

    def _stop(self) -> None:
        """Have every pytest end, which undoes what its tests made."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def main() -> int:
    """Run the tests as the command line says; the exit code."""
    # A CI's timeout says SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lanes, *arguments = sys.argv[1:]
    begun = time.monotonic()
    code = Lanes(stretches(), (sys.executable, "-m", "pytest"), arguments).run(int(lanes))
    print(f"== all tests: {'passed' if code == 0 else 'failed'} in {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
