"""Which changes were made on a node, in one file on the node, replaced by rename, written before each change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.steps import AnyStep
from shim.errors import NodeFault

#: In /etc, which every node has: a directory of its own would be a change made before it is on record.
FILE = "/etc/unikernel-shim.installed.json"
#: What has to be done after changes to files before they count, in this order.
Action: TypeAlias = Literal["reload", "serve", "containerd"]
ACTIONS: tuple[Action, ...] = ("reload", "serve", "containerd")
#: Is told of each change of the node or of the record, once it is made; the tests end the installer there.
Watcher: TypeAlias = Callable[[str], None]


class _Content(msgspec.Struct):
    """`release` is that of the last installation that was complete, "" while there was none."""

    release: str = ""
    steps: list[AnyStep] = []
    pending: list[Action] = []


def _unwatched(moment: str) -> None:
    """Nobody is told."""


class Record:
    """The node's record; of a node without one, an empty one."""

    def __init__(self, node: Node, watcher: Watcher = _unwatched) -> None:
        """Raises NodeFault where the file is none of ours."""
        self._node = node
        self._watcher = watcher
        try:
            self._content = msgspec.json.decode(node.entry(FILE).read_bytes(), type=_Content)
        except FileNotFoundError:
            self._content = _Content()
        except msgspec.MsgspecError as error:
            raise NodeFault(f"is no record: {error}", subject=FILE, remedy="move it away and install again") from error

    @property
    def release(self) -> str:
        return self._content.release

    @property
    def steps(self) -> tuple[AnyStep, ...]:
        return tuple(self._content.steps)

    @property
    def pending(self) -> tuple[Action, ...]:
        return tuple(action for action in ACTIONS if action in self._content.pending)

    def find(self, path: str) -> AnyStep | None:
        """The step that is on record for a path."""
        return next((step for step in self._content.steps if step.path == path), None)

    def do(self, step: AnyStep, *actions: Action) -> None:
        """Do a step, unless it is done; then `actions` become due. Raises NodeFault."""
        known = self.find(step.path)
        if known == step and step.done(self._node):
            return
        if known is None:
            self._content.steps.append(step)
        else:
            self._content.steps[self._content.steps.index(known)] = step
        if step.done(self._node):
            self._save(f"record {step.path}")
            return
        self._add(actions)
        self._save(f"record {step.path}")
        self._change(step.path, lambda: step.do(self._node))

    def undo(self, step: AnyStep, *actions: Action) -> str:
        """Undo a step and forget it; what stays, or "". Raises NodeFault."""
        if actions:
            self._add(actions)
            self._save(f"record {step.path}")
        stays = self._change(step.path, lambda: step.undo(self._node))
        self._content.steps.remove(step)
        self._save(f"forget {step.path}")
        return str(stays)

    def settle(self, action: Action) -> None:
        """An action was done."""
        self._content.pending.remove(action)
        self._save(f"settle {action}")

    def complete(self, release: str) -> None:
        """All of a release is there."""
        if self._content.release != release:
            self._content.release = release
            self._save("complete")

    def close(self) -> None:
        """Everything is undone: the record itself goes."""
        assert not self._content.steps, "a step is not undone"
        self._draft.unlink(missing_ok=True)
        self._node.entry(FILE).unlink(missing_ok=True)

    def _add(self, actions: tuple[Action, ...]) -> None:
        self._content.pending += [action for action in actions if action not in self._content.pending]

    @property
    def _draft(self) -> Any:
        return self._node.entry(FILE + ".new")

    def _save(self, moment: str) -> None:
        try:
            with self._draft.open("wb") as file:
                file.write(msgspec.json.encode(self._content))
                file.flush()
                # A record that a loss of power emptied would leave nobody who knows what to undo.
                os.fsync(file.fileno())
            self._draft.replace(self._node.entry(FILE))
        except OSError as error:
            raise _unwritable(FILE, error) from error
        self._watcher(moment)

    def _change(self, path: str, change: Callable[[], Any]) -> Any:
        try:
            result = change()
        except OSError as error:
            raise _unwritable(path, error) from error
        self._watcher(path)
        return result


def _unwritable(path: str, error: OSError) -> NodeFault:
    return NodeFault(
        f"cannot be changed: {os.strerror(error.errno or 0)}",
        subject=path,
        remedy="nodes whose /etc, /opt or /usr/local cannot be written to are not for this installer",
    )
