"""What containerd's configuration says of this runtime: the one place that knows it.

The files of contrib/containerd say the same for those who read them before they install anything, and a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

RUNTIME_TYPE: Final = "io.containerd.unikernel.v2"
#: The shim binary's name, by containerd's rule for `RUNTIME_TYPE` (containerd, core/runtime/v2/README.md).
COURIER: Final = "containerd-shim-unikernel-v2"
#: The plugin's name, which `sandboxer` refers to.
PLUGIN: Final = "unikernel"
#: The tables of the CRI plugin's runtimes: of configurations of version 3 and later, of 2, and of 1.
RUNTIME_TABLE: Final = "io.containerd.cri.v1.runtime"
CRI_TABLE: Final = "io.containerd.grpc.v1.cri"
FIRST_TABLE: Final = "cri"
#: Handlers by sandboxer, as they are called where a containerd has all three.
HANDLERS: Final = {PLUGIN: "unikernel", "shim": "unikernel-shim", "podsandbox": "unikernel-podsandbox"}
#: The sandboxers with which containerd runs the shim binary.
BY_COURIER: Final = ("shim", "podsandbox")
#: Annotations that must reach the service, by the key that lets them: a pod's, and a container's.
ANNOTATIONS: Final = {
    "pod_annotations": ("io.unikernel.*", "com.urunc.unikernel.*"),
    "container_annotations": ("io.unikernel.*", "com.urunc.unikernel.*", "io.kubernetes.pod.terminationGracePeriod"),
}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def handler(sandboxer: str, table: str) -> str:
    """What the runtime handler is called: where there is one only, as with containerd 1.x, plainly `unikernel`."""
    return HANDLERS[sandboxer] if table == RUNTIME_TABLE else "unikernel"


def plugin(socket: Path, name: str = PLUGIN) -> str:
    """The table that tells containerd 2.x of the service as a sandbox plugin."""
    return f'[proxy_plugins.{_key(name)}]\ntype = "sandbox"\naddress = {_string(str(socket))}\n'


def runtime(name: str, sandboxer: str, table: str) -> str:
    """The table of a runtime handler; containerd 1.x knows no sandboxer but `podsandbox`, nor the word."""
    lines = [_header(name, table), f"runtime_type = {_string(RUNTIME_TYPE)}"]
    if sandboxer != "podsandbox":
        lines.append(f"sandboxer = {_string(sandboxer)}")
    lines += [array(key, words) for key, words in ANNOTATIONS.items()]
    return "\n".join(lines) + "\n"


def array(key: str, words: Iterable[str]) -> str:
    """A line that gives `key` an array of strings."""
    return f"{key} = [{', '.join(map(_string, words))}]"


def _header(name: str, table: str) -> str:
    return f"[plugins.{_string(table)}.containerd.runtimes.{_key(name)}]"


def _key(word: str) -> str:
    """A TOML key: bare where it can be."""
    return word if _BARE.fullmatch(word) else _string(word)


def _string(word: str) -> str:
    """A TOML string: JSON's are ones, too."""
    return json.dumps(word)


def ordinary(name: str, table: str) -> str:
    """The table of the handler for ordinary containers. containerd 1.x has it only while no other is written down."""
    return f'{_header(name, table)}\nruntime_type = "io.containerd.runc.v2"\n'


def stanza(sandboxer: str, table: str, socket: Path) -> str:
    """All that one way of being asked takes."""
    parts = [plugin(socket)] if sandboxer == PLUGIN else []
    return "\n".join([*parts, runtime(handler(sandboxer, table), sandboxer, table)])
