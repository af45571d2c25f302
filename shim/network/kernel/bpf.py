"""bpf(2): programs and maps in the kernel. Called from threads; every function raises OSError.

The kernel checks a program before it takes it; what it has to say about one that it refuses is in the error's notes.
Descriptors are close-on-exec by the kernel's own rule. A program that is attached lives on without its descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

# linux/bpf.h: enum bpf_cmd, enum bpf_map_type, enum bpf_prog_type.
_MAP_CREATE = 0
_MAP_UPDATE = 2
_PROGRAM_LOAD = 5
_MAP_TYPE_ARRAY = 2
_PROGRAM_TYPE_CLASSIFIER = 3
#: Enough of union bpf_attr for every command here; the kernel takes any size whose rest is zero.
_ATTRIBUTES = 120
_LOG = 1 << 16
# asm/unistd.h: bpf(2) by architecture.
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_libc = ctypes.CDLL(None, use_errno=True)


def make_array(values: Sequence[bytes]) -> int:
    """A map from 0, 1, … to `values`, which are all of one length. Returns its descriptor."""
    size = len(values[0])
    descriptor = _bpf(_MAP_CREATE, struct.pack("=IIIII", _MAP_TYPE_ARRAY, 4, size, len(values), 0))
    try:
        for position, value in enumerate(values):
            put(descriptor, position, value)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def put(descriptor: int, position: int, value: bytes) -> None:
    """Set one element of an array map."""
    key, data = ctypes.create_string_buffer(struct.pack("=I", position), 4), ctypes.create_string_buffer(value)
    _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", descriptor, ctypes.addressof(key), ctypes.addressof(data), 0))


def load_classifier(code: bytes, name: str) -> int:
    """Have the kernel check and take a program for tc(8). Returns its descriptor."""
    try:
        return _load(code, name, None)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        # Only now ask for the checker's words: writing them takes longer than checking.
        log = ctypes.create_string_buffer(_LOG)
        try:
            return _load(code, name, log)
        except OSError as again:
            again.add_note(log.value.decode(errors="replace")[-2000:])
            raise again from error


def _load(code: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    # No helper that is used here asks for a GPL-compatible licence.
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    return _bpf(
        _PROGRAM_LOAD,
        struct.pack(
            "=IIQQIIQII16s",
            _PROGRAM_TYPE_CLASSIFIER,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            1 if log is not None else 0,
            len(log) if log is not None else 0,
            ctypes.addressof(log) if log is not None else 0,
            0,
            0,
            name.encode()[:15],
        ),
    )


def _bpf(command: int, attributes: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf: unknown on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    result: int = _libc.syscall(number, command, buffer, _ATTRIBUTES)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf: {os.strerror(code)}")
    return result
