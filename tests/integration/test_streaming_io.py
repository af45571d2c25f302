"""`io_type = "streaming"`: containers' standard streams over the sandbox's address, on real containerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import images
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(60)

HANDLERS = ("unikernel-streaming", "unikernel-podsandbox-streaming")


def logged(pod: Pod, container: str) -> dict[str, str]:
    """What the container's log says, by stream, put together again where CRI has cut a line."""
    found = {"stdout": "", "stderr": ""}
    for line in Path(pod.client.status(container).log_path).read_text().splitlines():
        _, stream, tag, text = line.split(" ", 3)
        found[stream] += text + ("\n" if tag == "F" else "")
    return found


def shell(pod: Pod, script: str, **options: object) -> str:
    """Run an ordinary container with this script."""
    return pod.run(images.BUSYBOX, command=["/bin/sh", "-c", script], **options)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_log_has_every_byte_and_stderr_apart(
    handler: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    with containerd.cri.pod(handler) as pod:
        container = shell(pod, "seq 1 400000; seq 1 1000 >&2; exit 3")
        assert containerd.cri.wait_exit(container).exit_code == 3
        found = logged(pod, container)
        assert found["stdout"] == "".join(f"{number}\n" for number in range(1, 400001))
        assert found["stderr"] == "".join(f"{number}\n" for number in range(1, 1001))
        assert list((daemon.run_dir / "streams").iterdir()) == []
