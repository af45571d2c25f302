"""Whether a container is a unikernel, and how it is to be run.

    io.unikernel.kernel  | the entry point is | so the container is
    ---------------------|--------------------|----------------------------------------------------------------
    names a file         | anything           | that kernel; the whole command line is the guest's, less the
                         |                    | kernel's own path where it comes first
    names a missing file | an ordinary program| ordinary: pod annotations reach sidecars too
    names a missing file | missing or a kernel| an error: nothing in this image can run
    is not there         | a Solo5 kernel     | that kernel
    is not there         | a Linux kernel     | that kernel
    is not there         | a broken Solo5 file| an error
    is not there         | an ordinary program| ordinary, whatever other annotations say: they reach sidecars too
    is not there         | a missing file     | an error where another annotation selects a unikernel, else ordinary:
                         |                    | the engine has the words for that

An entry point without a slash that is no file at the image's top is a program which the engine finds on PATH. A pod's
pause container is never asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim.errors import ImageFault, InvalidRequest
from shim.oci import kernel as kernels
from shim.oci import packed
from shim.oci.annotations import PREFIX, Assignment, Wishes, wishes
from shim.oci.kernel import Kernel
from shim.storage.inside import find

#: What works with what; the first monitor is the default. A Solo5 kernel names its tender itself.
_MONITORS: dict[str, tuple[str, ...]] = {"solo5": ("spt", "hvt"), "linux": ("qemu",)}
_EVERY_MONITOR = sorted({name for names in _MONITORS.values() for name in names})


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the image, or a block device of the pod, that is to be a disk of the guest: `path` on the node.

    `target` is where the guest is to mount it ("" nowhere), `device` the name in a kernel's manifest ("" without one).
    """

    path: Path
    target: str = ""
    device: str = ""
    read_only: bool = False


class Unikernel(msgspec.Struct, frozen=True, kw_only=True):
    """A recognised unikernel: paths are the node's, `arguments` the guest's, `memory` in MiB or None.

    `root` says how the container's root file system reaches the guest: a format, "none", or "auto". `version` is what
    the image says of the version of the guest's family, `kind` of the machine, "" where it does not.
    """

    path: Path
    kernel: Kernel
    guest: str
    monitor: str
    arguments: tuple[str, ...] = ()
    cmdline: str = ""
    memory: int | None = None
    initrd: Path | None = None
    network: str = "auto"
    nics: tuple[Assignment, ...] = ()
    dataplane: str = ""
    root: str = "auto"
    blocks: tuple[Block, ...] = ()
    version: str = ""
    kind: str = ""


def recognise(root: Path, arguments: tuple[str, ...], annotations: Mapping[str, str]) -> Unikernel | None:
    """The unikernel in the image at `root`, None for an ordinary container; blocks.

    `arguments` is the process's argv; `annotations` are the pod's, which win over what the image says of itself
    (`packed`). Raises ImageFault and InvalidRequest naming the file or annotation.
    """
    wanted = wishes_of(root, annotations)
    found = _kernel(root, arguments, wanted)
    if found is None:
        return None
    name, path, kernel = found
    kernels.check_machine(kernel, name)
    if kernel.block_devices:
        # Every device of a manifest must be attached, or the tender ends.
        raise ImageFault(
            f"the kernel's manifest asks for block devices [{', '.join(kernel.block_devices)}], "
            "which are not supported yet",
            subject=name,
            remedy="build it without them",
        )
    _check_pair(wanted)
    guest = _guest(kernel, wanted)
    monitor = _monitor(kernel, guest, wanted)
    if wanted.initrd and guest != "linux":
        raise _contradiction("initrd", wanted.initrd, f"the guest is {guest}, which takes none")
    if wanted.cmdline and guest != "linux":
        raise _contradiction(
            "cmdline", wanted.cmdline, f"the guest is {guest}: put its arguments into the container's args"
        )
    own = _own_arguments(root, arguments, path)
    return Unikernel(
        path=path,
        kernel=kernel,
        guest=guest,
        monitor=monitor,
        arguments=own,
        cmdline=wanted.cmdline,
        memory=wanted.memory,
        initrd=find(root, wanted.initrd, "initrd") if wanted.initrd else None,
        network=wanted.network,
        nics=wanted.nics,
        dataplane=wanted.dataplane,
    )


def wishes_of(root: Path, annotations: Mapping[str, str]) -> Wishes:
    """What the pod's annotations and the image's own description wish for, the pod's first; blocks.

    Raises ImageFault and InvalidRequest naming the file or annotation.
    """
    return wishes({**packed.read(root), **annotations})


def _kernel(root: Path, arguments: tuple[str, ...], wanted: Wishes) -> tuple[str, Path, Kernel] | None:
    """Name, path and headers of the kernel, None for an ordinary container."""
    entry = arguments[0] if arguments else ""
    if wanted.kernel:
        try:
            path = find(root, wanted.kernel, "kernel")
        except ImageFault:
            if _is_ordinary(root, entry):
                return None
            raise
        kernels.check_elf_machine(path, wanted.kernel)
        kernel = kernels.read(path, wanted.kernel)
        if kernel is None:
            raise ImageFault(
                "the file is no kernel that is known here",
                subject=wanted.kernel,
                remedy="Solo5 kernels (ELF with its notes) and Linux kernels are recognised",
            )
        return wanted.kernel, path, kernel
    if not entry:
        return None
    try:
        path = find(root, entry, "kernel")
    except ImageFault:
        if (wanted.monitor or wanted.guest or wanted.initrd) and not _is_ordinary(root, entry):
            raise
        return None
    kernel = _entry(path, entry)
    return (entry, path, kernel) if kernel is not None else None


def _entry(path: Path, name: str) -> Kernel | None:
    """The kernel that is the entry point, None for an ordinary program. A broken program is the engine's to complain
    of, so a broken file counts only where it says that it is Solo5's."""
    try:
        return kernels.read(path, name)
    except ImageFault:
        if kernels.says_solo5(path):
            raise
        return None


def _is_ordinary(root: Path, entry: str) -> bool:
    """Whether the entry point is a program and no kernel."""
    if not entry:
        return False
    try:
        return _entry(find(root, entry, "entry point"), entry) is None
    except ImageFault:
        return "/" not in entry


def _own_arguments(root: Path, arguments: tuple[str, ...], kernel: Path) -> tuple[str, ...]:
    """The command line without the kernel's own path at its head."""
    if not arguments:
        return ()
    try:
        first = find(root, arguments[0], "kernel")
    except ImageFault:
        return arguments
    return arguments[1:] if first == kernel else arguments


def _check_pair(wanted: Wishes) -> None:
    """Raise InvalidRequest where the annotations contradict each other, whatever the image holds."""
    if wanted.guest not in _MONITORS or not wanted.monitor:
        return
    works = _MONITORS[wanted.guest]
    if wanted.monitor in _EVERY_MONITOR and wanted.monitor not in works:
        raise InvalidRequest(
            f"{wanted.monitor!r} contradicts {PREFIX}guest {wanted.guest!r}",
            subject=f"{PREFIX}monitor",
            remedy=f"{wanted.guest} guests run on {' or '.join(works)}",
        )


def _guest(kernel: Kernel, wanted: Wishes) -> str:
    if wanted.guest and wanted.guest not in _MONITORS:
        raise InvalidRequest(
            f"{wanted.guest!r} is not a guest", subject=f"{PREFIX}guest", remedy=f"known are {', '.join(_MONITORS)}"
        )
    if wanted.guest and wanted.guest != kernel.family:
        raise _contradiction("guest", wanted.guest, f"the kernel says it is {kernel.family}")
    return kernel.family


def _monitor(kernel: Kernel, guest: str, wanted: Wishes) -> str:
    works = (kernel.tender,) if guest == "solo5" else _MONITORS[guest]
    if wanted.monitor and wanted.monitor not in _EVERY_MONITOR:
        raise InvalidRequest(
            f"{wanted.monitor!r} is not a monitor",
            subject=f"{PREFIX}monitor",
            remedy=f"known are {', '.join(_EVERY_MONITOR)}",
        )
    if wanted.monitor and wanted.monitor not in works:
        raise _contradiction("monitor", wanted.monitor, f"this {guest} kernel runs on {' or '.join(works)}")
    if works[0] not in _MONITORS[guest]:
        raise ImageFault(
            f"the kernel is built for Solo5's {works[0]} target",
            subject=kernel.tender,
            remedy=f"build it for {' or '.join(_MONITORS[guest])}",
        )
    return wanted.monitor or works[0]


def _contradiction(name: str, value: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{value!r} contradicts the image: {why}", subject=f"{PREFIX}{name}", remedy="remove one of them"
    )
