"""How a container of an image would be run, and why: what `recognise` decides, in words, from what it decided by.

Nothing is decided here: a refusal is the error that a pod would get.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from shim.errors import ShimError
from shim.guests.base import GuestSpec
from shim.guests.registry import guests
from shim.monitors.base import Monitor
from shim.oci import packed, urunc
from shim.oci.annotations import PREFIX, Wishes
from shim.oci.image import Block, Unikernel, recognise, wishes_of
from shim.oci.volumes import BlockDevice
from shim.sandbox.disks import is_bare
from shim.sandbox.volumes import Part, RootFileSystem, Storage, abilities, decide, told
from shim.storage import formats

_DEVICES = Path("/dev")
_NATURES = {"solo5": "a Solo5 kernel by its ELF notes", "": "a file whose headers say nothing"}


class Fact(msgspec.Struct, frozen=True):
    """One thing that is decided, and by what."""

    value: str
    why: str


class Refusal(msgspec.Struct, frozen=True):
    """The error that a pod would get: its status code by name, and its text."""

    code: str
    message: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`facts` by what they are about, in the order in which they follow from each other; `notes` are what a reader
    might take for said and is not."""

    verdict: Literal["unikernel", "ordinary", "refused"]
    facts: dict[str, Fact] = {}
    refusal: Refusal | None = None
    notes: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be explained: its process's argv and environment, the pod's annotations, and `unheard`, what the
    image has in places that no runtime is shown (labels, a manifest's annotations), by the place. `monitors` are the
    node's, of which none is started; `memory` is what a guest gets of which nothing is said, in MiB. `files` are how
    many regular ones the image has, None where all of them are there to be seen."""

    monitors: Mapping[str, Monitor]
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    unheard: Mapping[str, Mapping[str, str]] = {}
    memory: int = 0
    files: int | None = None


#: What becomes of a pod's own container, which is never asked what it is.
PAUSE = Explanation(verdict="ordinary", facts={"container": Fact("ordinary", "it is the pod's pause container")})


def explain(root: Path, asked: Question) -> Explanation:
    """What would become of a container on the image at `root`, whose pod gives it every block device that is asked for;
    blocks, raises nothing of the image's."""
    notes: tuple[str, ...] = ()
    try:
        own = packed.read(root)
        wanted = wishes_of(root, asked.annotations)
        said = _Said(asked.annotations, own, wanted)
        notes = tuple(_unheard(asked.unheard, {**own, **asked.annotations}, wanted))
        devices = [wish.path for wish in wanted.blocks if wish.of_pod]
        image = recognise(root, asked.arguments, asked.annotations, devices)
        if image is None:
            facts = {"container": Fact("ordinary", _text(_why_ordinary(asked, said)))}
            return Explanation(verdict="ordinary", facts=facts, notes=notes)
        facts = {name: Fact(_text(fact.value), _text(fact.why)) for name, fact in _facts(root, image, asked, said)}
    except ShimError as error:
        return Explanation(verdict="refused", refusal=Refusal(error.code.name, _text(str(error))), notes=notes)
    return Explanation(verdict="unikernel", facts=facts, notes=notes)


class _Said(msgspec.Struct, frozen=True):
    """Who said what: the pod, the image's own description, or either in urunc's words."""

    pod: Mapping[str, str]
    own: Mapping[str, str]
    wanted: Wishes

    def by(self, name: str, otherwise: str = "") -> str:
        """A sentence on who said what the annotation `name` says, `otherwise` where nobody did."""
        key = self.wanted.key(name)
        if self.pod.get(key):
            return f"the pod's annotation {key} says so"
        if key in self.wanted.said_by.values():
            return f"{key} in the image says so"
        return f"{packed.PATH} in the image says so ({key})" if self.own.get(key) else otherwise


def _facts(root: Path, image: Unikernel, asked: Question, said: _Said) -> Iterator[tuple[str, Fact]]:
    nature = _NATURES.get(image.kernel.family, f"a {image.kernel.family.capitalize()} kernel by its headers")
    yield "kernel", Fact(_inside(root, image.path), said.by("kernel", f"it is the entry point, and {nature}"))
    on = f"{nature}, and {image.guest} by its content or name" if image.guest != image.kernel.family else nature
    yield "guest", Fact(image.guest, said.by("guest", f"the kernel is {on}"))
    tender = (
        f"the kernel was built for {image.kernel.tender}" if image.kernel.tender else f"{image.guest}'s first choice"
    )
    yield "monitor", Fact(image.monitor, said.by("monitor", tender))
    if image.memory:
        yield "memory", Fact(f"{image.memory} MiB", said.by("memory"))
    else:
        why = "nothing is said of it: with a memory limit, what that leaves beside the monitor"
        yield "memory", Fact(f"{asked.memory} MiB", why)
    yield "network", _network(image, said)
    if image.initrd:
        yield "initrd", Fact(_inside(root, image.initrd), said.by("initrd", "it is what the kernel, a loader, loads"))
    for number, block in enumerate(image.blocks):
        yield f"disk {block.device or number}", _disk(root, block, said)
    guest, monitor = guests()[image.guest], asked.monitors[image.monitor]
    of_pod = (
        BlockDevice(path=str(block.path), major=0, minor=0, read_only=block.read_only)
        for block in image.blocks
        if block.path.is_relative_to(_DEVICES)
    )
    storage = decide(image, _files(root, image, asked.files), (), tuple(of_pod), abilities(guest, monitor))
    yield "root", _root(storage, image, said)
    words = guest.words(
        GuestSpec(
            program=image.program,
            arguments=image.arguments,
            environment=asked.environment,
            cmdline=image.cmdline,
            volumes=told(storage, image.root_target, [_format(part) for part in storage.parts]),
            version=image.version,
            console=monitor.console,
        )
    )
    yield "command line", Fact(" ".join(words) or "empty", "its arguments and environment, and no network yet")


def _files(root: Path, image: Unikernel, count: int | None) -> RootFileSystem:
    paths = (Path(top, name) for top, _, names in os.walk(root) for name in names)
    all_seen = count is None or count <= sum(path.is_file() and not path.is_symlink() for path in paths)
    return RootFileSystem(directory=root, is_bare=all_seen and is_bare(root, image))


def _format(part: Part) -> str:
    return part.format or (formats.read(part.source) or "" if part.origin == "file" else "")


def _root(storage: Storage, image: Unikernel, said: _Said) -> Fact:
    """How the container's root file system reaches the guest."""
    at = image.root_target
    by = "no disk, no initrd and no word says otherwise, and the guest has one" if image.root == "auto" else ""
    for part in storage.parts:
        if part.target == at and part.origin == "tree":
            how = "read-only" if part.read_only else "a copy of the pod's own"
            return Fact(f"the image's files as {part.format}, {how}, at {at}", said.by("root", by))
        if part.target == at:
            return Fact(f"{part.source.name}, at {at}", said.by("block"))
    if any(share.target == at for share in storage.shares):
        return Fact(f"the image's files, shared by the monitor, at {at}", said.by("root", by))
    if storage.initrd is not None and storage.initrd.tree is not None:
        return Fact(f"the image's files as the initrd, at {at}", said.by("root", by))
    if image.initrd is not None:
        return Fact("what the initrd makes of it", said.by("root", "the image has an initrd of its own"))
    return Fact("none of the image's files", said.by("root", f"a guest like this ({image.guest}) is its kernel alone"))


def _disk(root: Path, block: Block, said: _Said) -> Fact:
    where = f", mounted at {block.target}" if block.target else ""
    of_pod = block.path.is_relative_to("/dev")
    path = str(block.path) if of_pod else _inside(root, block.path)
    value = f"{path}{where}{', read-only' if block.read_only else ''}"
    return Fact(value, said.by("block") + (", and the pod must have the device" if of_pod else ""))


def _network(image: Unikernel, said: _Said) -> Fact:
    devices = image.kernel.net_devices
    if image.network == "none":
        return Fact("none", said.by("network"))
    demand = " (required)" if image.network == "required" else ""
    if image.nics:
        names = ", ".join(f"{nic.device}={nic.interface}" if nic.device else nic.interface for nic in image.nics)
        return Fact(f"{names}{demand}", said.by("nics"))
    if devices is None:
        return Fact(f"every interface of the pod{demand}", "the kernel has no manifest that names devices")
    if not devices:
        return Fact("none", "the kernel's manifest names no network device")
    return Fact(f"{', '.join(devices)}{demand}", "the kernel's manifest asks for as many of the pod's interfaces")


def _inside(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root.resolve())}"


def _text(text: str) -> str:
    """`text` without what a path or an argument has where its bytes are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _why_ordinary(asked: Question, said: _Said) -> str:
    entry = asked.arguments[0] if asked.arguments else ""
    if said.wanted.kernel:
        return f"{said.wanted.kernel} is not in it ({said.by('kernel')}), and the entry point {entry} is a program"
    if not entry:
        return "it has no entry point, and nothing names a kernel"
    return f"the entry point {entry} is no kernel, and nothing names one"


def _unheard(places: Mapping[str, Mapping[str, str]], heard: Mapping[str, str], wanted: Wishes) -> Iterator[str]:
    # A description for urunc in the image has the same keys as its labels.
    spoken = {key.removeprefix(f"{urunc.FILE}: ") for key in wanted.said_by.values()}
    for place, said in places.items():
        keys = sorted(
            key
            for key, value in said.items()
            if key.startswith((PREFIX, urunc.PREFIX)) and heard.get(key) != value and key not in spoken
        )
        if keys:
            yield (
                f"the image's {place} has {', '.join(keys)}, which containerd shows to no runtime: "
                "put them on the pod, or build the image with `unikernel-shim image build`"
            )
