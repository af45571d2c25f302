"""One frame, over and over, into a descriptor: `pourer.py DESCRIPTOR SECONDS`, the frame on standard input; prints how
many there were and how many seconds of a CPU they took. `pourer.py drain DESCRIPTOR` reads frames until it is told to
end (SIGTERM), and prints how many came. Both are run by themselves."""

import errno
import itertools
import os
import signal
import sys
import time

_AT_ONCE = 500


def _pour(descriptor: int, seconds: float) -> None:
    frame = sys.stdin.buffer.read()
    write, sent = os.write, 0
    end, began = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        for _ in itertools.repeat(None, _AT_ONCE):
            try:
                write(descriptor, frame)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # lost on the way, as one that nobody takes in time
                    raise
        sent += _AT_ONCE
    print(sent, time.process_time() - began)


def _drain(descriptor: int) -> None:
    buffers, readv, came = [bytearray(1 << 16)], os.readv, 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("ready", flush=True)
    try:
        while True:
            readv(descriptor, buffers)
            came += 1
    except KeyboardInterrupt:
        print(came)


if __name__ == "__main__":
    if sys.argv[1] == "drain":
        _drain(int(sys.argv[2]))
    else:
        _pour(int(sys.argv[1]), float(sys.argv[2]))
