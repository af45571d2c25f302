"""What a kernel file says of itself, in its headers; nobody needs to be asked.

    says that it is | by
    ----------------|-------------------------------------------------------------------------------------------------
    Solo5           | its notes, which name the tender and the devices (Solo5, include/elf_abi.h and mft_abi.h); on it,
                    | rumprun by the linker set of its components (NetBSD, sys/rump/include/rump-sys/kern.h)
    Hermit          | the application's note (hermit-entry, src/lib.rs and src/elf.rs)
    OSv             | Xen's note of the guest's name (OSv, arch/x64/entry-xen.S), or the section that holds its entry's
                    | address (arch/x64/loader.ld)
    Unikraft        | its sections .uk_bootinfo, .uk_inittab and .uk_ctortab, which strip(1) leaves there and
                    | multiboot.py copies (Unikraft, plat/common/bootinfo.lds.S and include/uk/plat/common/common.lds.h)
    Linux           | its boot header (Documentation/arch/x86/boot.rst, arch/arm64/booting.rst) or PVH note (Xen's
                    | elfnote.h)

Linux's headers are a way to boot: others have them too (Unikraft's arm64 images, Nanos' PVH note), and then who it is
has to be said. MirageOS writes nothing of its own into a Solo5 kernel.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from elftools.common.exceptions import ELFError

from shim.errors import ImageFault
from shim.oci.elf import MAGIC, STANDALONE, Elf
from shim.oci.elf import machine as elf_machine

_ABI1, _MFT1 = 0x31494241, 0x3154464D
_TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}
# struct mft_entry on 64-bit machines: name, type, a union of 16 bytes, a pointer, a bool padded to 8.
_ENTRY, _NAME = 104, 68
_BLOCK, _NET = 1, 2
_ENTRIES = 64
_GUEST_OS, _PVH = 6, 18  # XEN_ELFNOTE_GUEST_OS, XEN_ELFNOTE_PHYS32_ENTRY
_HERMIT = 0x5A00  # NT_HERMIT_ENTRY_VERSION
_RUMPRUN = "link_set_rump_components"
_OSV = ".start32_address"
_UNIKRAFT = frozenset((".uk_bootinfo", ".uk_inittab", ".uk_ctortab"))
# e_machine (elf.h). A multiboot kernel for x86-64 is a 32-bit file: its boot loader starts it in 32-bit mode.
_MACHINES = {3: "x86_64", 62: "x86_64", 183: "aarch64"}
_HEAD = 0x264 + 4  # bytes that hold every fixed header read below
_PROTOCOL = 0x020C  # since when the header tells where a 64-bit kernel starts
_AGAIN = "build the image again"
# Marks that stand out in a file whose headers lead nowhere: Solo5's interpreter, which cannot be (include/elf_abi.h),
# the notes of OSv and Hermit, the names of Unikraft's sections. A linker puts the first three at a file's beginning.
_MARKS = (
    b"/nonexistent/solo5/",
    struct.pack("<III8s", 4, 4, _GUEST_OS, b"Xen\0osv\0"),
    struct.pack("<III8s", 7, 1, _HERMIT, b"HERMIT\0\0"),
    *(b"\0%s\0" % name.encode() for name in sorted(_UNIKRAFT)),
)
_NEAR = 1 << 16


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel's headers. `machine` is as uname(2) says it; `tender` is Solo5's target and `abi` its version; the
    device tuples, in the manifest's order, are None where there is no manifest. `guest` is what else the file says of
    itself: a guest on Solo5, "" where it does not. The family is "" of a file whose headers say nothing."""

    family: Literal["solo5", "linux", "unikraft", "hermit", "osv", ""]
    machine: str
    tender: str = ""
    abi: int = 0
    net_devices: tuple[str, ...] | None = None
    block_devices: tuple[str, ...] | None = None
    guest: str = ""


def read(path: Path, name: str) -> Kernel | None:
    """The kernel in the file at `path`, None when it is no kernel; blocks. `name` is what errors call it.

    Raises ImageFault for a file that begins like one and is broken.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if head[:4] == MAGIC:
                return _elf(file, name)
            if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
                return _bzimage(head, file.seek(0, os.SEEK_END), name)
    except OSError as error:
        raise ImageFault(f"the file cannot be read: {error.strerror}", subject=name) from error
    if len(head) >= 0x40 and head[0x38:0x3C] == b"ARMd":
        return Kernel(family="linux", machine="aarch64")
    return None


def _bzimage(head: bytes, size: int, name: str) -> Kernel:
    """A Linux kernel by its boot header: setup_sects at 0x1f1, syssize (in 16 bytes) at 0x1f4, version at 0x206."""
    if len(head) < _HEAD:
        raise ImageFault("the Linux kernel ends inside its header", subject=name, remedy=_AGAIN)
    sectors, paragraphs = head[0x1F1] or 4, int.from_bytes(head[0x1F4:0x1F8], "little")
    whole = (sectors + 1) * 512 + paragraphs * 16
    if size < whole:
        raise ImageFault(f"the Linux kernel is truncated: {size} bytes of {whole}", subject=name, remedy=_AGAIN)
    version = int.from_bytes(head[0x206:0x208], "little")
    if version < _PROTOCOL:
        raise ImageFault(
            f"the Linux kernel speaks boot protocol {version >> 8}.{version & 0xFF:02}, too old for its monitor",
            subject=name,
            remedy="use Linux 3.8 or newer",
        )
    return Kernel(family="linux", machine="x86_64")


def says_kernel(path: Path) -> bool:
    """Whether a file that `read` calls broken was meant for a kernel that is known here, by what is left of its marks
    near its ends. Blocks; raises OSError."""
    with path.open("rb") as file:
        head = file.read(_NEAR)
        file.seek(max(file.seek(0, os.SEEK_END) - _NEAR, 0))
        tail = file.read(_NEAR)
    return head[0x202:0x206] == b"HdrS" or any(mark in head or mark in tail for mark in _MARKS)


def check_elf_machine(path: Path, name: str) -> None:
    """Raise ImageFault when an ELF file, whatever else is in it, is for another machine than this node; blocks.

    Said first of a file that was named as the kernel: a kernel for another machine may be no kernel known here.
    """
    with path.open("rb") as file:
        if file.read(4) == MAGIC and (number := elf_machine(file)):
            _require(_MACHINES.get(number, f"another machine (ELF e_machine {number})"), name)


def check_machine(kernel: Kernel, name: str) -> None:
    """Raise ImageFault when the kernel is for another machine than this node."""
    _require(kernel.machine, name)


def _require(machine: str, name: str) -> None:
    node = os.uname().machine
    if machine != node:
        raise ImageFault(
            f"the kernel is built for {machine}, this node is {node}",
            subject=name,
            remedy="use an image for this architecture",
        )


def _elf(file: BinaryIO, name: str) -> Kernel | None:
    try:
        return _elf_kernel(file)
    except OSError:
        raise
    except Exception as error:
        # pyelftools meets a hostile file with nearly any of Python's own errors.
        why = str(error) if isinstance(error, ELFError | ValueError) else f"{type(error).__name__}: {error}"
        raise ImageFault(f"a truncated or broken ELF file ({why})", subject=name, remedy=_AGAIN) from error


def _elf_kernel(file: BinaryIO) -> Kernel | None:
    elf = Elf(file)
    machine = _MACHINES.get(elf.machine, f"another machine (ELF e_machine {elf.machine})")
    target: tuple[str, int] | None = None
    manifest: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    osv = hermit = pvh = False
    for owner, kind, description in elf.notes():
        if (owner, kind) == (b"Solo5", _ABI1):
            target = _target(description)
        elif (owner, kind) == (b"Solo5", _MFT1):
            manifest = _manifest(description)
        elif (owner, kind) == (b"Xen", _GUEST_OS):
            osv = osv or description.rstrip(b"\0") == b"osv"
        elif (owner, kind) == (b"Xen", _PVH):
            pvh = True
        elif (owner, kind) == (b"HERMIT", _HERMIT):
            hermit = elf.os_abi == STANDALONE
    sections = elf.sections()
    if target is not None:
        return Kernel(
            family="solo5",
            machine=machine,
            tender=target[0],
            abi=target[1],
            net_devices=manifest[0],
            block_devices=manifest[1],
            guest="rumprun" if _RUMPRUN in sections else "",
        )
    if hermit:
        return Kernel(family="hermit", machine=machine)
    if osv or _OSV in sections:
        return Kernel(family="osv", machine=machine)
    if sections & _UNIKRAFT:
        return Kernel(family="unikraft", machine=machine)
    return Kernel(family="linux", machine=machine) if pvh else None


def _target(description: bytes) -> tuple[str, int]:
    """struct abi1_info: the target and its version."""
    number, version = struct.unpack_from("<II", description)
    if number not in _TARGETS:
        raise ValueError(f"unknown Solo5 target {number}")
    return _TARGETS[number], version


def _manifest(description: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Network and block device names of struct mft, in its order."""
    # The structure is aligned to 8 bytes and its note's header has 20, so 4 bytes of padding come first.
    start = 4 if len(description) % 8 == 4 else 0
    version, entries = struct.unpack_from("<II", description, start)
    if version != 1 or entries > _ENTRIES:
        raise ValueError(f"a Solo5 manifest of version {version} with {entries} entries")
    found: dict[int, list[str]] = {_NET: [], _BLOCK: []}
    for position in range(entries):
        raw, kind = struct.unpack_from(f"<{_NAME}sI", description, start + 8 + position * _ENTRY)
        if kind not in found:
            continue
        device = raw.partition(b"\0")[0].decode("ascii")
        # As strict as the tender's own option (tenders/spt/spt_module_net.c), which the name becomes part of.
        if not re.fullmatch(r"[A-Za-z0-9]{1,67}", device):
            raise ValueError(f"a Solo5 device named {device!r}")
        found[kind].append(device)
    return tuple(found[_NET]), tuple(found[_BLOCK])
