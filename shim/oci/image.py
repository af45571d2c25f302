"""Whether a container is a unikernel, and how it is to be run.

    a kernel is  | the entry point is | so the container is
    named: it is |                    |
    -------------|--------------------|---------------------------------------------------------------------------
    a file       | anything           | that kernel; the whole command line is the guest's, less the kernel's own path
                 |                    | where it comes first
    a file       | a Hermit program   | that kernel, with the program as what it loads
    missing      | an ordinary program| ordinary where the pod names it, whose annotations reach sidecars too; else an
                 |                    | error: the image is not what it says
    missing      | missing or a kernel| an error: nothing in this image can run
    not named    | a kernel by its    | that kernel
                 | headers            |
    not named    | a broken kernel    | an error
    not named    | NAME.nabla         | that kernel, and an error where it is none
    not named    | an ordinary program| ordinary, whatever other annotations say: they reach sidecars too
    not named    | a missing file     | an error where another annotation selects a unikernel, else ordinary: the engine
                 |                    | has the words for that

A kernel is named by `io.unikernel.kernel`, else by urunc's annotation, else by the image's unikernel.json, else by its
urunc.json. An entry point without a slash that is no file at the image's top is a program which the engine finds on
PATH. A pod's pause container is never asked.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from shim.errors import ImageFault, InvalidRequest
from shim.oci import kernel as kernels
from shim.oci import packed, pairing, urunc
from shim.oci.annotations import PREFIX, Assignment, BlockWish, Wishes, wishes
from shim.oci.kernel import Kernel
from shim.storage.inside import find

_WORKS = (
    "Solo5 and Nabla kernels, Unikraft's, OSv's and Linux's are recognised; io.unikernel.guest says what others are"
)
# The guests that are told what their program is called; of the others urunc's all take the whole line as arguments.
_NAMED_PROGRAMS = ("linux", "unikraft", "rumprun")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the guest: a file of the image by its path on the node, or a block device of the pod by its path in the
    container, below /dev.

    `target` is where the guest is to mount it ("" nowhere), `device` the name in a kernel's manifest ("" without one).
    """

    path: Path
    target: str = ""
    device: str = ""
    read_only: bool = False


class Unikernel(msgspec.Struct, frozen=True, kw_only=True):
    """A recognised unikernel: paths are the node's, `arguments` the guest's, `memory` in MiB or None.

    `program` is what the guest's program is called, its argv[0], "" where the image does not say.
    `root` says how the container's root file system reaches the guest: a format, "none", or "auto", and `root_target`
    where the guest mounts it. `version` is what the image says of the version of the guest's family, `kind` of the
    machine, "" where it does not.
    """

    path: Path
    kernel: Kernel
    guest: str
    monitor: str
    program: str = ""
    arguments: tuple[str, ...] = ()
    cmdline: str = ""
    memory: int | None = None
    initrd: Path | None = None
    network: str = "auto"
    nics: tuple[Assignment, ...] = ()
    dataplane: str = ""
    root: str = "auto"
    root_target: str = "/"
    blocks: tuple[Block, ...] = ()
    version: str = ""
    kind: str = ""


def recognise(
    root: Path, arguments: tuple[str, ...], annotations: Mapping[str, str], devices: Collection[str] = ()
) -> Unikernel | None:
    """The unikernel in the image at `root`, None for an ordinary container; blocks.

    `arguments` is the process's argv, `devices` are the block devices that the pod gives it, by their paths in the
    container. Raises ImageFault and InvalidRequest naming the file or annotation.
    """
    wanted = wishes_of(root, annotations)
    found = _kernel(root, arguments, wanted, by_pod=wanted.key("kernel") in annotations)
    if found is None:
        return None
    kernels.check_machine(found.kernel, found.name)
    pairing.check_words(wanted)
    guest = pairing.guest_of(found.kernel, found.name, wanted)
    monitor = pairing.monitor_of(found.kernel, guest, wanted)
    pairing.check_rest(found.kernel, guest, wanted)
    program, own = _program(found, guest, wanted)
    cmdline = wanted.cmdline
    if program and guest == "linux":
        cmdline = f"{cmdline} {_init(program, initrd=bool(wanted.initrd))}".strip()
    initrd = wanted.initrd or found.loads
    if guest == "hermit" and not initrd:
        raise ImageFault(
            "nothing says which program Hermit's loader is to start",
            subject=found.name,
            remedy="make the program the entry point, or name it in io.unikernel.initrd",
        )
    return Unikernel(
        path=found.path,
        kernel=found.kernel,
        guest=guest,
        monitor=monitor,
        program=program,
        arguments=own,
        cmdline=cmdline,
        memory=wanted.memory,
        initrd=find(root, initrd, "initrd") if initrd else None,
        network=wanted.network,
        nics=wanted.nics,
        dataplane=wanted.dataplane,
        root=wanted.root,
        root_target=wanted.root_target,
        blocks=tuple(_block(root, wish, wanted, devices) for wish in wanted.blocks),
        version=wanted.version,
        kind=pairing.machine_of(found.kernel, guest, monitor, wanted),
    )


def wishes_of(root: Path, annotations: Mapping[str, str]) -> Wishes:
    """What the pod's annotations wish for, and where they are silent the image's own files; blocks.

    Raises ImageFault and InvalidRequest naming the file or annotation.
    """
    otherwise = urunc.wishes(_urunc_file(root), urunc.from_annotations(annotations))
    # The pod comes first, in whichever words it speaks.
    spoken = {f"{PREFIX}{field}" for field, key in otherwise.said_by.items() if key in annotations}
    own = {key: value for key, value in packed.read(root).items() if key not in spoken}
    return wishes({**own, **annotations}, otherwise)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel, what errors call it, and the arguments that are the guest's; `loads` is what a loader is to load."""

    name: str
    path: Path
    kernel: Kernel
    arguments: tuple[str, ...] = ()
    loads: str = ""


def _urunc_file(root: Path) -> Mapping[str, str]:
    """What the image's urunc.json says, nothing where there is none. Raises ImageFault."""
    if not os.path.lexists(root / urunc.FILE):
        return {}
    try:
        with find(root, urunc.FILE, "file").open("rb") as file:
            data = file.read(urunc.LIMIT + 1)
    except OSError as error:
        raise ImageFault(f"the file cannot be read: {error.strerror}", subject=urunc.FILE) from error
    if len(data) > urunc.LIMIT:
        raise ImageFault(f"it has more than {urunc.LIMIT} bytes", subject=urunc.FILE, remedy="build the image again")
    return urunc.from_file(data)


def _kernel(root: Path, arguments: tuple[str, ...], wanted: Wishes, *, by_pod: bool) -> _Found | None:
    """The kernel, None for an ordinary container; `by_pod` says that the pod names it, and not the image."""
    entry = arguments[0] if arguments else ""
    if wanted.kernel:
        return _named(root, arguments, wanted, by_pod=by_pod)
    if not entry:
        return None
    try:
        path = find(root, entry, "kernel")
    except ImageFault:
        selects = wanted.monitor or wanted.guest or wanted.initrd or entry.endswith(pairing.NABLA)
        if selects and not _is_ordinary(root, entry):
            raise
        return None
    kernel = _nabla(path, entry) if entry.endswith(pairing.NABLA) else _entry(path, entry)
    if kernel is None:
        return None
    if kernel.family == "hermit":
        raise _without_loader(entry)
    return _Found(name=entry, path=path, kernel=kernel, arguments=arguments[1:])


def _named(root: Path, arguments: tuple[str, ...], wanted: Wishes, *, by_pod: bool) -> _Found | None:
    """The kernel that is named, None where the pod names one that is missing and the entry point is a program."""
    name = wanted.kernel
    try:
        path = find(root, name, "kernel")
    except ImageFault:
        if by_pod and _is_ordinary(root, arguments[0] if arguments else ""):
            return None
        raise
    kernels.check_elf_machine(path, name)
    kernel = _nabla(path, name) if name.endswith(pairing.NABLA) else kernels.read(path, name)
    if kernel is not None and kernel.family == "hermit":
        raise _without_loader(name)
    own, loads = _own_arguments(root, arguments, path)
    if loads:
        # A loader's own headers say how it is booted, if anything.
        kernel = Kernel(family="hermit", machine=kernel.machine if kernel else os.uname().machine)
    elif kernel is None and pairing.may_be_unmarked(wanted.guest):
        kernel = Kernel(family="", machine=os.uname().machine)
    if kernel is None:
        raise ImageFault("the file is no kernel that is known here", subject=name, remedy=_WORKS)
    return _Found(name=name, path=path, kernel=kernel, arguments=own, loads=loads)


def _without_loader(name: str) -> ImageFault:
    return ImageFault(
        "a Hermit program is started by Hermit's loader",
        subject=name,
        remedy="put the loader into the image, and name it in io.unikernel.kernel",
    )


def _nabla(path: Path, name: str) -> Kernel:
    """The kernel that is a Nabla image's entry point. Raises ImageFault for one that no tender of today can run."""
    kernel = kernels.read(path, name)
    if kernel is None or kernel.family != "solo5":
        kernels.check_elf_machine(path, name)
        raise ImageFault(
            "the Nabla kernel has no notes of Solo5's: it is built for a tender older than Solo5 0.6 (nabla-run, ukvm)",
            subject=name,
            remedy="build it again with a rumprun for Solo5's spt or hvt",
        )
    return kernel


def _entry(path: Path, name: str) -> Kernel | None:
    """The kernel that is the entry point, None for an ordinary program. A broken program is the engine's to complain
    of, so a broken file counts only where it says that it is a kernel."""
    try:
        return kernels.read(path, name)
    except ImageFault:
        if kernels.says_kernel(path):
            raise
        return None


def _is_ordinary(root: Path, entry: str) -> bool:
    """Whether the entry point is a program and no kernel."""
    if not entry or entry.endswith(pairing.NABLA):
        return False
    try:
        return _entry(find(root, entry, "entry point"), entry) is None
    except ImageFault:
        return "/" not in entry


def _own_arguments(root: Path, arguments: tuple[str, ...], kernel: Path) -> tuple[tuple[str, ...], str]:
    """The command line without the kernel's own path at its head, or a Hermit program's, which comes second."""
    if not arguments:
        return (), ""
    try:
        first = find(root, arguments[0], "kernel")
    except ImageFault:
        return arguments, ""
    if first == kernel:
        return arguments[1:], ""
    found = _entry(first, arguments[0])
    if found is not None and found.family == "hermit":
        kernels.check_machine(found, arguments[0])
        return arguments[1:], arguments[0]
    return arguments, ""


def _program(found: _Found, guest: str, wanted: Wishes) -> tuple[str, tuple[str, ...]]:
    """What the guest's program is called, and its arguments."""
    own = found.arguments or wanted.default_arguments
    if wanted.names_program and own and guest in _NAMED_PROGRAMS:
        return own[0], own[1:]
    # As runnc does, which hands the kernel's path to its guest (llruntimes/nabla/runnc-cont/runnc_cont.go).
    return (found.name if found.name.endswith(pairing.NABLA) else ""), own


def _init(program: str, *, initrd: bool) -> str:
    """Linux's word for what it is to start (Documentation/admin-guide/kernel-parameters.rst)."""
    word = f"{'rdinit' if initrd else 'init'}={program}"
    return f'"{word}"' if any(character.isspace() for character in program) else word


def _block(root: Path, wish: BlockWish, wanted: Wishes, devices: Collection[str]) -> Block:
    if wish.of_pod and wish.path not in devices:
        raise InvalidRequest(
            f"the pod has no block device {wish.path!r}, it has [{', '.join(devices) or 'none'}]",
            subject=wanted.key("block"),
            remedy="list it in volumeDevices, or name a file of the image",
        )
    return Block(
        path=Path(wish.path) if wish.of_pod else find(root, wish.path, "block device's image"),
        target=wish.target,
        device=wish.device,
        read_only=wish.read_only,
    )
