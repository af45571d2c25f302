"""The cluster's RuntimeClasses, as far as kubectl works here."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection

import msgspec

from shim.doctor.finding import Area, Finding, Outcome, unseen, words
from shim.doctor.stanzas import HANDLERS
from shim.errors import ShimError
from shim.monitors.base import Run

_TIMEOUT = 4.0  # seconds; kubectl gives the server less
_ASK = ("get", "runtimeclasses.node.k8s.io", "--output=json", "--request-timeout=3s")


class RuntimeClass(msgspec.Struct, frozen=True, kw_only=True):
    """One class: its name, its handler, and the memory that it adds to each pod, "" for none."""

    name: str
    handler: str
    overhead: str = ""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The classes there are, or why they are not known."""

    classes: tuple[RuntimeClass, ...] = ()
    refusal: str = ""


class _Metadata(msgspec.Struct):
    name: str


class _Overhead(msgspec.Struct):
    podFixed: dict[str, str] = {}  # noqa: N815 - Kubernetes' name (node.k8s.io/v1)


class _Item(msgspec.Struct):
    metadata: _Metadata
    handler: str
    overhead: _Overhead | None = None


class _List(msgspec.Struct):
    items: list[_Item]


async def observe(run: Run) -> Cluster:
    """Ask by way of kubectl, with whatever configuration it has here."""
    kubectl = await asyncio.to_thread(shutil.which, "kubectl")
    if kubectl is None:
        return Cluster(refusal="kubectl is not installed here")
    try:
        done = await run([kubectl, *_ASK], timeout=_TIMEOUT)
    except (ShimError, OSError) as error:
        return Cluster(refusal=f"kubectl: {words(error)}")
    if done.status != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return Cluster(refusal=f"kubectl: {said[-1] if said else f'exit status {done.status}'}")
    try:
        found = msgspec.json.decode(done.stdout, type=_List)
    except msgspec.DecodeError as error:
        return Cluster(refusal=f"kubectl's answer cannot be read: {error}")
    return Cluster(
        classes=tuple(
            RuntimeClass(
                name=item.metadata.name,
                handler=item.handler,
                overhead=item.overhead.podFixed.get("memory", "") if item.overhead else "",
            )
            for item in found.items
        )
    )


def judge(seen: Cluster, handlers: Collection[str]) -> list[Finding]:
    """`handlers` are those on this node that work; where there are none, the names that we give them."""
    if seen.refusal:
        return [unseen(Area.CLUSTER, "RuntimeClass", seen.refusal, "kubectl get runtimeclasses, where it works")]
    names = set(handlers) or set(HANDLERS.values())
    found = [_class(each, handlers) for each in seen.classes if each.handler in names | set(HANDLERS.values())]
    if any(each.handler in names for each in seen.classes):
        return found
    what = f"none names a handler of this node ({', '.join(sorted(names))})"
    why = "a pod asks for the runtime by runtimeClassName"
    return [*found, _finding("RuntimeClass", Outcome.DOUBTFUL, what, why, _manifest(sorted(names)[0]))]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.CLUSTER, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


def _class(found: RuntimeClass, handlers: Collection[str]) -> Finding:
    subject = f"RuntimeClass {found.name}"
    if handlers and found.handler not in handlers:
        what = f"its handler is {found.handler}, which does not work on this node"
        why = "its pods fail here: a nodeSelector in the class keeps them away"
        fix = f"add the handler to containerd's configuration, or: kubectl edit runtimeclass {found.name}"
        return _finding(subject, Outcome.DOUBTFUL, what, why, fix)
    overhead = (
        f"adds {found.overhead} to each pod" if found.overhead else "no overhead, as for containers with a memory limit"
    )
    return _finding(subject, Outcome.GOOD, f"handler {found.handler}; {overhead}")


def _manifest(handler: str) -> str:
    lines = (
        "kubectl apply -f - <<'EOF'",
        "apiVersion: node.k8s.io/v1",
        "kind: RuntimeClass",
        "metadata:",
        f"  name: {handler}",
        f"handler: {handler}",
        "EOF",
    )
    return "\n".join(lines)
