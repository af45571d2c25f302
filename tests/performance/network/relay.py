"""Carries frames one way, from one descriptor to another: `relay.py SOURCE TARGET`. It is run by itself, two for each
guest, and imports next to nothing: what it costs is part of what is measured with it.

Both descriptors block. One read is one frame, with the tap's header where it has one, so large segments cross whole.
"""

import os
import sys

#: A frame of the largest segment there is, and a struct virtio_net_hdr (linux/virtio_net.h) in front of it.
_LARGEST = 10 + 14 + (1 << 16)


def _relay(source: int, target: int) -> None:
    buffer = bytearray(_LARGEST)
    view, buffers = memoryview(buffer), [buffer]
    readv, write = os.readv, os.write
    while True:
        try:
            while True:
                write(target, view[: readv(source, buffers)])
        except OSError as error:
            # What a device refuses, a wire would have lost; but a device that is gone ends it (EBADFD).
            if error.errno == 77:
                return


if __name__ == "__main__":
    _relay(int(sys.argv[1]), int(sys.argv[2]))
