"""How a container of an image would be run, and why: what `recognise` decides, in words, from what it decided by.

Nothing is decided here: a refusal is the error that a pod would get.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from shim.errors import ShimError
from shim.guests.base import GuestSpec
from shim.guests.registry import guests
from shim.oci import packed
from shim.oci.annotations import PREFIX
from shim.oci.image import Unikernel, recognise
from shim.oci.kernel import Kernel

# What begins the annotations that are read here, ours and urunc's.
_PREFIXES = (PREFIX, "com.urunc.unikernel.")


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
    image has in places that no runtime is shown (labels, a manifest's annotations), by the place. `memory` is what a
    guest gets of which nothing is said, in MiB."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    unheard: Mapping[str, Mapping[str, str]] = {}
    memory: int = 0


def explain(root: Path, asked: Question) -> Explanation:
    """What would become of a container on the image at `root`; blocks, raises nothing of the image's."""
    notes: tuple[str, ...] = ()
    try:
        own = packed.read(root)
        notes = tuple(_unheard(asked.unheard, {**own, **asked.annotations}))
        image = recognise(root, asked.arguments, asked.annotations)
        if image is None:
            facts = {"container": Fact("ordinary", _why_ordinary(asked, own))}
            return Explanation(verdict="ordinary", facts=facts, notes=notes)
        facts = dict(_facts(root, image, asked, own))
    except ShimError as error:
        return Explanation(verdict="refused", refusal=Refusal(error.code.name, str(error)), notes=notes)
    return Explanation(verdict="unikernel", facts=facts, notes=notes)


def _facts(root: Path, image: Unikernel, asked: Question, own: Mapping[str, str]) -> Iterator[tuple[str, Fact]]:
    def said(name: str, otherwise: str) -> str:
        return _by(name, asked.annotations, own) or otherwise

    inside = f"/{image.path.relative_to(root.resolve())}"
    yield "kernel", Fact(inside, said("kernel", f"it is the entry point, and {_nature(image.kernel)}"))
    yield "guest", Fact(image.guest, said("guest", f"the kernel is {_nature(image.kernel)}"))
    tender = f"the kernel was built for {image.kernel.tender}" if image.kernel.tender else f"what {image.guest} runs on"
    yield "monitor", Fact(image.monitor, said("monitor", tender))
    if image.memory:
        yield "memory", Fact(f"{image.memory} MiB", said("memory", "the image says so"))
    else:
        why = "nothing is said of it: with a memory limit, what that leaves beside the monitor"
        yield "memory", Fact(f"{asked.memory} MiB", why)
    yield "network", _network(image, said)
    if image.initrd:
        yield "initrd", Fact(f"/{image.initrd.relative_to(root.resolve())}", said("initrd", "the image says so"))
    for block in image.blocks:
        name = f"disk {block.device}" if block.device else f"disk {image.blocks.index(block)}"
        path = block.path
        shown = f"/{path.relative_to(root.resolve())}" if path.is_relative_to(root.resolve()) else str(path)
        where = f", mounted at {block.target}" if block.target else ""
        yield (
            name,
            Fact(f"{shown}{where}{', read-only' if block.read_only else ''}", said("block", "the image says so")),
        )
    words = guests()[image.guest].words(
        GuestSpec(
            arguments=image.arguments, environment=asked.environment, cmdline=image.cmdline, version=image.version
        )
    )
    yield "command line", Fact(" ".join(words) or "empty", "its arguments and environment, and no network yet")


def _network(image: Unikernel, said: object) -> Fact:
    devices = image.kernel.net_devices
    if image.network == "none":
        return Fact("none", f"{PREFIX}network says so")
    demand = " (required)" if image.network == "required" else ""
    if image.nics:
        names = ", ".join(f"{nic.device}={nic.interface}" if nic.device else nic.interface for nic in image.nics)
        return Fact(f"{names}{demand}", f"{PREFIX}nics says so")
    if devices is None:
        return Fact(f"every interface of the pod{demand}", "the kernel has no manifest that names devices")
    if not devices:
        return Fact("none", "the kernel's manifest names no network device")
    return Fact(f"{', '.join(devices)}{demand}", "the kernel's manifest asks for as many of the pod's interfaces")


def _by(name: str, pod: Mapping[str, str], own: Mapping[str, str]) -> str:
    key = f"{PREFIX}{name}"
    if pod.get(key):
        return f"the pod's annotation {key} says so"
    return f"{packed.PATH} in the image says so ({key})" if own.get(key) else ""


def _nature(kernel: Kernel) -> str:
    if kernel.family == "solo5":
        return "a Solo5 kernel by its ELF notes"
    return f"a {kernel.family.capitalize()} kernel by its header"


def _why_ordinary(asked: Question, own: Mapping[str, str]) -> str:
    entry = asked.arguments[0] if asked.arguments else ""
    named = _by("kernel", asked.annotations, own)
    if not entry:
        return "it has no entry point, and nothing names a kernel"
    if named:
        return f"the kernel that is named is not in it, and the entry point {entry} is a program"
    return f"the entry point {entry} is no kernel, and nothing names one"


def _unheard(places: Mapping[str, Mapping[str, str]], heard: Mapping[str, str]) -> Iterator[str]:
    for place, said in places.items():
        keys = sorted(key for key, value in said.items() if key.startswith(_PREFIXES) and heard.get(key) != value)
        if keys:
            yield (
                f"the image's {place} has {', '.join(keys)}, which containerd shows to no runtime: "
                "put them on the pod, or build the image with `unikernel-shim image build`"
            )
