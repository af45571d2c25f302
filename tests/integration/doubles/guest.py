"""The guest behind a double's taps. Standard library only: it runs in a monitor's root.

It answers ARP, ping and UDP's echo (RFC 862) on its first NIC, at the address that the kernel's own `ip=` has for eth0
on its command line. It prints that line first.
"""

from __future__ import annotations

import os
import re
import struct

VNET_HEADER = 12  # struct virtio_net_hdr_v1 (linux/virtio_net.h)


class Guest:
    """A guest with the command line `words`; `taps` are descriptors with the MAC of the NIC behind each."""

    def __init__(self, words: str, taps: list[tuple[int, str]]) -> None:
        found = re.search(r"(?:^| )ip=([0-9.]+):[^ ]*:eth0:", words)
        self._address = bytes(map(int, found[1].split("."))) if found else b""
        self._macs = {tap: bytes.fromhex(mac.replace(":", "")) for tap, mac in taps}
        self.taps = [tap for tap, _ in taps]
        self.deaf = " deaf" in words
        print(words, flush=True)

    def hear(self, tap: int) -> None:
        """Take a frame from the tap, and answer it if it is for us."""
        frame = os.read(tap, 1 << 17)[VNET_HEADER:]
        if self._address and tap == self.taps[0]:
            reply = answer(frame, self._macs[tap], self._address)
            if reply:
                os.write(tap, bytes(VNET_HEADER) + reply)


def checksum(data: bytes) -> bytes:
    """The Internet's (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def answer(frame: bytes, mac: bytes, address: bytes) -> bytes:
    """What a host with that MAC and IPv4 address sends back to an Ethernet frame, b"" for nothing."""
    kind = frame[12:14]
    if kind == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == address:
        return frame[6:12] + mac + frame[12:20] + b"\0\2" + mac + address + frame[22:32]
    if kind != b"\x08\0" or frame[30:34] != address:
        return b""
    end = 14 + int(struct.unpack("!H", frame[16:18])[0])
    back = frame[6:12] + mac + frame[12:26] + address + frame[26:30]
    if frame[23] == 1 and frame[34] == 8:
        rest = frame[38:end]
        return back + b"\0\0" + checksum(b"\0\0\0\0" + rest) + rest
    if frame[23] == 17 and frame[36:38] == b"\0\7":
        return back + frame[36:38] + frame[34:36] + frame[38:40] + b"\0\0" + frame[42:end]
    return b""
