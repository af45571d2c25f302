"""Which sandbox an operator means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shim.errors import InvalidRequest, NotFound
from shim.sandbox.identifiers import title
from shim.sandbox.sandbox import Sandbox


def find(sandboxes: Iterable[Sandbox], wanted: str) -> Sandbox:
    """The sandbox of that id, NAMESPACE/NAME, NAME, or beginning of an id, or the one with a container of that id or of
    an id that begins so: the first of these that fits any.

    Raises NotFound, and InvalidRequest where several fit; one that has ended counts only where no other does.
    """
    if not wanted:
        raise InvalidRequest("no pod is named", remedy="give NAME, NAMESPACE/NAME or the beginning of a sandbox's id")
    everyone = list(sandboxes)
    tests: tuple[Callable[[Sandbox], bool], ...] = (
        lambda sandbox: sandbox.id == wanted,
        lambda sandbox: bool(sandbox.pod_name[1]) and "/".join(sandbox.pod_name) == wanted,
        lambda sandbox: sandbox.pod_name[1] == wanted,
        lambda sandbox: sandbox.id.startswith(wanted),
        lambda sandbox: wanted in sandbox.containers,
        lambda sandbox: any(id.startswith(wanted) for id in sandbox.containers),
    )
    for test in tests:
        fitting = [sandbox for sandbox in everyone if test(sandbox)]
        fitting = [sandbox for sandbox in fitting if not sandbox.over] or fitting
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise InvalidRequest(
                f"{len(fitting)} pods are meant: {', '.join(title(it.id, *it.pod_name) for it in fitting)}",
                subject=wanted,
                remedy="name one by its id",
            )
    raise NotFound("there is no such pod", subject=wanted, remedy="unikernel-shim ps --all lists them")
