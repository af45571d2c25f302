"""A small request and its response over UDP, run by itself in a namespace: `prober.py answer` on port 7 (RFC 862), and
`prober.py ask ADDRESS COUNT`, which prints each round trip's time in microseconds."""

import socket
import sys
import time

PORT = 7
_REQUEST = b"x" * 16
_PATIENCE = 1.0


def _answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("0.0.0.0", PORT))
        print("ready", flush=True)
        while True:
            data, sender = wire.recvfrom(64)
            wire.sendto(data, sender)


def _ask(address: str, count: int) -> None:
    took = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect((address, PORT))
        wire.settimeout(_PATIENCE)
        _warm_up(wire)
        wire.settimeout(None)
        now = time.perf_counter
        for _ in range(count):
            began = now()
            wire.send(_REQUEST)
            wire.recv(64)
            took.append((now() - began) * 1e6)
    print("\n".join(f"{each:.1f}" for each in took))


def _warm_up(wire: socket.socket) -> None:
    """Until it answers: the first request may come before everything is up."""
    for _ in range(5):
        try:
            wire.send(_REQUEST)
            wire.recv(64)
        except OSError:  # silence, or a word from the kernel that nobody is there yet
            time.sleep(0.02)
        else:
            break
    for _ in range(100):
        wire.send(_REQUEST)
        wire.recv(64)


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        _answer()
    else:
        _ask(sys.argv[2], int(sys.argv[3]))
