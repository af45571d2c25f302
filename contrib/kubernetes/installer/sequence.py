"""Install, remove and status of one node: which steps, in which order, and what is done between them.

Everything that can be refused is refused before the first step. A run that was killed is finished by the next one, or
undone by `remove`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from contrib.kubernetes.installer import registration
from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.record import ACTIONS, Action, Record
from contrib.kubernetes.installer.steps import AnyStep, Block, Claim, Directory, File, Link, Tree
from shim.errors import NodeFault, ShimError, WrongState

#: Where installations lie on a node; the link `current` there is the one in force.
HOME = "/opt/unikernel-shim"
_CURRENT = f"{HOME}/current"
_VERSIONS = f"{HOME}/versions"
_CONFIG = "/etc/unikernel-shim/config.toml"
_UNITS = "/etc/systemd/system"
_SERVICE = "unikernel-shim.service"
#: Programs that people and containerd find on PATH.
_PROGRAMS = ("unikernel-shim", "containerd-shim-unikernel-v2")
#: What the service makes by itself: its run directory and its storage's, with their defaults (shim/config.py).
_RUN_DIR = "/run/unikernel-shim"
_CLAIMS = ("/var/lib/unikernel-shim", _RUN_DIR)


class Site(msgspec.Struct, frozen=True):
    """What differs from node to node: containerd's main file, its program and its unit, and a directory of its PATH."""

    config: str = "/etc/containerd/config.toml"
    containerd: str = "containerd"
    unit: str = "containerd.service"
    bindir: str = "/usr/local/bin"


class Installation(msgspec.Struct, frozen=True):
    """What this image brings: the tree at `source`, made to lie at the same path on nodes (image/tree.sh)."""

    source: Path
    release: str

    @property
    def stanzas(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in (self.source / "share/containerd").glob("*.toml")}

    @property
    def units(self) -> dict[str, str]:
        """The units as they are to be on a node."""
        texts = {file.name: file.read_text() for file in sorted((self.source / "share/units").iterdir())}
        places = {"@BINDIR@": f"{_CURRENT}/venv/bin", "@SYSCONFDIR@": "/etc", "@PREFIX@": _CURRENT}
        return {name: re.sub("|".join(places), lambda at: places[at[0]], text) for name, text in texts.items()}


def install(node: Node, site: Site, installation: Installation, record: Record) -> list[str]:
    """Put the runtime on the node, or bring what is there to this release; sentences worth a log.

    Raises NodeFault. Where containerd would not take its new configuration, that is as it was, and not restarted.
    """
    registered = _registration(node, site, installation, record)
    wanted = list(_wanted(node, site, installation, record))
    _refuse_conflicts(node, wanted, record)
    before = _dump(node, site)
    for step in wanted:
        record.do(step, *_consequences(step))
    registering = _registering(node, registered, record)
    former = [record.find(step.path) for step in registering]
    for step in registering:
        record.do(step, "containerd")
    try:
        wrong = registration.difference(before, _dump(node, site), registration.parse(registered.path, registered.text))
        if wrong:
            raise NodeFault(f"with this runtime in it {wrong}", subject=site.config, remedy="it was put back as it was")
    except ShimError:
        for step, was in reversed(list(zip(registering, former, strict=True))):
            _put_back(record, step, was)
        raise
    # The daemon first: containerd is to find it.
    _act(node, site, record, *_sockets_first(installation.units))
    said = []
    for step in _outdated(record, {step.path for step in (*wanted, *registering)}):
        if isinstance(step, Tree) and _in_use(node, step.path):
            said.append(f"{step.path} stays until what runs from it has ended")
            continue
        said += filter(None, [record.undo(step, *_forgotten(step))])
    _act(node, site, record)
    record.complete(installation.release)
    return [*said, f"release {installation.release} is on this node"]


def remove(node: Node, site: Site, record: Record, *, force: bool = False) -> list[str]:
    """Take everything off the node again; sentences worth a log. A node without an installation stays as it is.

    Raises WrongState while pods run, unless `force`, and NodeFault.
    """
    if record.steps and not force and _pods(node):
        raise WrongState(
            f"there are pods of this runtime ({_pods(node)} records of them)",
            subject="the node",
            remedy="drain it, or remove the pods (kubectl get pods -A -o wide shows them)",
        )
    said: list[str] = []
    units = [step for step in record.steps if _is_unit(step)]
    registering = [step for step in record.steps if _is_registration(step, site)]
    for step in reversed(registering):
        said += filter(None, [record.undo(step, "containerd")])
    if "containerd" in record.pending:
        # Before the service ends: a containerd that still names it would take its pods for lost. And not if it would
        # not come back, whatever is wrong with its configuration.
        _dump(node, site)
        node.systemctl("restart", site.unit)
        record.settle("containerd")
    for name in _sockets_first(posixpath.basename(step.path) for step in units if node.entry(step.path).exists()):
        node.systemctl("stop", name)
    for step in reversed(record.steps):
        said += filter(None, [record.undo(step, *_forgotten(step))])
    if "reload" in record.pending:
        node.systemctl("daemon-reload")
        record.settle("reload")
    record.close()
    return [*said, "the runtime is off this node"]


def status(node: Node, installation: Installation, record: Record) -> None:
    """Raises NodeFault unless this release is whole on the node."""
    if record.release != installation.release or record.pending:
        raise NodeFault(f"release {installation.release} is not complete", subject="the node", remedy="install it")
    for step in record.steps:
        if not step.done(node):
            raise NodeFault("was removed by somebody", subject=step.path, remedy="install it again")


def absent(record: Record) -> None:
    """Raises NodeFault while anything of an installation is on the node."""
    if record.steps:
        raise NodeFault("is on this node", subject="the runtime", remedy="remove it")


def _wanted(node: Node, site: Site, installation: Installation, record: Record) -> Iterator[AnyStep]:
    """Every step but the registration's, in order."""
    links = {f"{site.bindir}/{name}": f"{_CURRENT}/venv/bin/{name}" for name in _PROGRAMS}
    files = {f"{_UNITS}/{name}": text for name, text in installation.units.items()}
    for name, text in installation.units.items():
        links |= {f"{_UNITS}/{target}.wants/{name}": f"{_UNITS}/{name}" for target in wanted_by(text)}
    config = {_CONFIG: (installation.source / "share/config.toml").read_text()}
    if record.find(_CONFIG) is None and node.entry(_CONFIG).exists():
        config = {}
    for path in _CLAIMS:
        if record.find(path) is not None or not node.entry(path).exists():
            yield Claim(path)
    tree = f"{_VERSIONS}/{installation.release}"
    yield from _directories(node, record, tree, *config, *files, *links)
    yield Tree(tree, str(installation.source))
    for path, text in {**config, **files}.items():
        file, former = File(path, text), record.find(path)
        yield file.following(former) if isinstance(former, File) and former.text != text else former or file
    for path, target in {_CURRENT: tree.removeprefix(f"{HOME}/"), **links}.items():
        link, known = Link(path, target), record.find(path)
        yield link.following(known) if isinstance(known, Link) and known.target != target else known or link


def wanted_by(unit: str) -> list[str]:
    """The targets that a unit is to be started with (systemd.unit(5), [Install])."""
    return [target for line in re.findall(r"^WantedBy=(.*)$", unit, re.MULTILINE) for target in line.split()]


def _registration(node: Node, site: Site, installation: Installation, record: Record) -> registration.Registration:
    """What is to be told to containerd."""
    version = registration.read_version(node.run(site.containerd, "--version"))
    main = node.path(site.config)
    known = record.find(site.config)
    ours = isinstance(known, File)
    text = registration.without_block(main.read_text()) if main.exists() and not ours else None
    return registration.decide(version, site.config, text, installation.stanzas)


def _registering(node: Node, registered: registration.Registration, record: Record) -> list[AnyStep]:
    """The steps of a registration, in order."""
    known = record.find(registered.path)
    if registered.whole:
        file = File(registered.path, registered.text)
        following = isinstance(known, File) and known.text != file.text
        step: AnyStep = file.following(known) if isinstance(known, File) and following else known or file
        return [*_directories(node, record, registered.path), step]
    block = Block(registered.path, registered.text)
    if not isinstance(known, Block):
        return [block.before(node)]
    return [known if known.text == block.text else block.following(known)]


def _put_back(record: Record, step: AnyStep, former: AnyStep | None) -> None:
    """Take a registration back: to what a former installation told containerd, where one was complete."""
    if former is None or not record.release:
        record.undo(step)
        return
    if isinstance(step, File) and isinstance(former, File):
        former = former.following(step)
    if isinstance(step, Block) and isinstance(former, Block):
        former = former.following(step)
    record.do(former)


def _is_registration(step: AnyStep, site: Site) -> bool:
    return isinstance(step, Block | File) and (
        step.path == site.config or posixpath.basename(step.path) == registration.DROP_IN
    )


def _directories(node: Node, record: Record, *paths: str) -> Iterator[Directory]:
    """Those above `paths` that are not there, or are there by our hand, from above."""
    above = {posixpath.dirname(path) for path in paths}
    for path in list(above):
        while (path := posixpath.dirname(path)) != "/":
            above.add(path)
    for path in sorted(above):
        if isinstance(record.find(path), Directory) or not node.path(path).is_dir():
            yield Directory(path)


def _refuse_conflicts(node: Node, wanted: list[AnyStep], record: Record) -> None:
    """Raises NodeFault where another installation's files are in the way."""
    for step in wanted:
        if (
            isinstance(step, File | Link)
            and record.find(step.path) is None
            and node.entry(step.path).is_symlink() | (node.entry(step.path).exists())
        ):
            raise NodeFault(
                "is there already, and not by this installer",
                subject=step.path,
                remedy="remove the other installation first (`make uninstall`)",
            )


def _consequences(step: AnyStep) -> tuple[Action, ...]:
    """What must be done for a step to count."""
    if _is_unit(step):
        return ("reload", "serve")
    return ("serve",) if step.path in (_CURRENT, _CONFIG) else ()


def _forgotten(step: AnyStep) -> tuple[Action, ...]:
    """What must be done for a step to count as undone."""
    return ("reload",) if _is_unit(step) else ()


def _sockets_first(units: Iterable[str]) -> list[str]:
    """systemd binds no socket for a service that runs, and starts a service anew that is stopped before its socket."""
    return sorted(units, key=lambda name: (not name.endswith(".socket"), name))


def _is_unit(step: AnyStep) -> bool:
    return isinstance(step, File) and posixpath.dirname(step.path) == _UNITS


def _dump(node: Node, site: Site) -> dict[str, object]:
    """containerd's configuration as it makes it out. Raises NodeFault where it refuses it."""
    # 1.x fails on a file that it was told of and that is not there.
    there = node.path(site.config).exists()
    asked = ("--config", site.config, "config", "dump") if there else ("config", "default")
    words = node.run(site.containerd, *asked)
    return registration.parse(f"{site.containerd} config dump", words)


def _act(node: Node, site: Site, record: Record, *units: str) -> None:
    """Do what is due: systemd reads its units, starts what is new, and containerd reads its configuration."""
    for action in ACTIONS:
        if action not in record.pending:
            continue
        if action == "reload":
            node.systemctl("daemon-reload")
        elif action == "serve":
            # Starting a socket twice is no harm, and it cannot be restarted under the service that has it.
            for unit in units:
                node.systemctl(*(("restart", unit) if unit == _SERVICE else ("start", unit)))
        else:
            node.systemctl("restart", site.unit)
        record.settle(action)


def _outdated(record: Record, kept: set[str]) -> list[AnyStep]:
    """What former installations did and this one, with the steps at the paths `kept`, does not; last first."""
    return [
        step for step in reversed(record.steps) if step.path not in kept and not isinstance(step, Directory | Claim)
    ]


def _pods(node: Node) -> int:
    """How many records of pods and containers the service's journals hold, of the node's daemon and of pods' own."""
    return sum(1 for _ in node.path(_RUN_DIR).glob("**/journal/**/*.json"))


def _in_use(node: Node, tree: str) -> bool:
    """Whether a process of the node runs by the tree's interpreter."""
    interpreters = [found.stat() for found in node.path(f"{tree}/python/bin").glob("python3.*")]
    for link in node.path("/proc").glob("[0-9]*/exe"):
        # It may have ended; the kernel's own have none.
        with contextlib.suppress(OSError):
            if any(os.path.samestat(link.stat(), each) for each in interpreters):
                return True
    return False
