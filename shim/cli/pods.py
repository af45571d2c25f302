"""The argument POD of subcommands, and what a shell completes it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from shim.wire import inspection_pb2 as pb

_F = TypeVar("_F", bound=Callable[..., Any])

_QUICK: Final = 0.5  # seconds that a shell may wait for names


def pod_argument(*, required: bool = True) -> Callable[[_F], _F]:
    """POD, which a shell completes, as the parameter `pod`."""
    return click.argument("pod", metavar="POD", required=required, shell_complete=_complete)


def pod_option(text: str) -> Callable[[_F], _F]:
    """--pod POD, likewise, None without; `text` is its help."""
    return click.option("--pod", metavar="POD", shell_complete=_complete, help=text)


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the service says; nothing where it does not answer at once: nobody asked a shell for an error."""
    from shim import config
    from shim.cli.client import ask_all
    from shim.errors import ShimError
    from shim.wire import inspection_pb2 as pb

    try:
        settings = config.load(context.find_root().params.get("config_path"))
        answers, _ = ask_all(settings, "List", pb.ListRequest(), pb.ListResponse, timeout=_QUICK)
    except ShimError:
        return []
    entries = [entry for answer in answers for entry in answer.sandboxes]
    return [CompletionItem(name, help=about) for name, about in names(entries) if name.startswith(incomplete)]


def names(entries: list[pb.SandboxEntry]) -> list[tuple[str, str]]:
    """How each can be named so that it alone is meant, and what it is: by its pod's name, with the namespace where two
    have that name, by its id outside Kubernetes and where two have both. Pure."""
    by_name = Counter(entry.pod_name for entry in entries)
    by_both = Counter((entry.pod_namespace, entry.pod_name) for entry in entries)
    found = []
    for entry in entries:
        if not entry.pod_name or by_both[entry.pod_namespace, entry.pod_name] > 1:
            name = entry.id
        elif by_name[entry.pod_name] > 1:
            name = f"{entry.pod_namespace}/{entry.pod_name}"
        else:
            name = entry.pod_name
        found.append((name, " ".join(word for word in (entry.guest, entry.status or entry.state) if word)))
    return found
