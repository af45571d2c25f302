"""CRI's logs: what a unikernel says on its console, and its monitor on stderr, as the kubelet reads it."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

import grpc
import pytest

from tests.integration.cri import Client, Pod
from tests.integration.node import Node
from tests.integration.tender_double import REFERENCE
from tests.integration.websocket import STDIN, Stream

# One line: the time (RFC 3339, nanoseconds without trailing zeros), the stream, whole or in part, the text (CRI's log
# format, kubernetes/design-proposals-archive, node/kubelet-cri-logging.md).
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) (.*)")
#: Bytes in a line that containerd writes whole (its option max_container_log_line_size).
_LONGEST = 16 << 10


def lines(path: Path) -> list[tuple[str, ...]]:
    """Time, zone, stream, tag and text of each line of a log. Raises AssertionError for one in any other form."""
    found = [_LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert all(found), path.read_text()[:1000]
    return [match.groups() for match in found if match]


def ended(pod: Pod, *words: str, tty: bool = False) -> list[tuple[str, ...]]:
    """The log of a unikernel that was told `words`, once it has ended."""
    with pod.running(REFERENCE, args=[*words, "after=0.2"], tty=tty) as container:
        pod.client.wait_exit(container)
        return lines(Path(pod.client.status(container).log_path))


def test_a_line_has_its_time_its_stream_and_its_text(pod: Pod) -> None:
    """What the guest says is stdout, what its monitor says is stderr, each in the order in which it was said."""
    before = int(time.time())
    log = ended(pod, "say=one", "complain=of this", "say=two", "complain=and that")
    said = [[text for *_, stream, _, text in log if stream == wanted] for wanted in ("stdout", "stderr")]
    assert said == [["one", "two"], ["of this", "and that"]]
    assert {tag for *_, tag, _ in log} == {"F"}
    assert all(before <= datetime.fromisoformat(at + zone).timestamp() <= time.time() for at, zone, *_ in log)


def test_a_long_line_is_cut_and_says_so(pod: Pod) -> None:
    """Each part but the last is tagged P, and together they are what was said."""
    said = 2 * _LONGEST + 100
    log = ended(pod, f"long={said}")
    assert [tag for *_, tag, _ in log] == ["P", "P", "F"]
    assert "".join(text for *_, text in log) == "x" * said


def test_the_last_words_of_a_unikernel_are_kept(pod: Pod) -> None:
    """Nothing of what was said just before the end is lost."""
    with pod.running(REFERENCE, args=["lines=5000", "exit=0"]) as container:
        pod.client.wait_exit(container)
        assert pod.log(container).splitlines() == [str(number) for number in range(5000)]


def test_a_terminal_is_one_stream(pod: Pod) -> None:
    """With `tty` both the guest's and the monitor's words are stdout."""
    log = ended(pod, "say=one", "complain=of this", tty=True)
    assert {stream for *_, stream, _, _ in log} == {"stdout"}
    assert {text.rstrip("\r") for *_, text in log} == {"one", "of this"}


def test_a_rotated_log_is_opened_again(pod: Pod, node: Node, cri: Client) -> None:
    """After ReopenContainerLog what is said goes to a new file of the log's name; what was said stays where it was."""
    with pod.running(REFERENCE, args=["say=before", "echo"], stdin=True) as container:
        path = Path(cri.status(container).log_path)
        wait_for(path, "before")
        rotated = path.rename(path.with_suffix(".old"))
        cri.call("ReopenContainerLog", cri.messages.ReopenContainerLogRequest(container_id=container))
        request = cri.messages.AttachRequest(container_id=container, stdin=True, stdout=True)
        with Stream(node, cri.call("Attach", request).url) as attached:
            attached.send(STDIN, b"after\n")
            wait_for(path, "after")
        assert [text for *_, text in lines(rotated)] == ["before"]
        assert [text for *_, text in lines(path)] == ["after"]


def test_the_log_of_what_does_not_run_is_not_opened_again(pod: Pod, cri: Client) -> None:
    """ReopenContainerLog fails for a container that has ended."""
    with pod.running(REFERENCE) as container:
        cri.stop(container)
        with pytest.raises(grpc.RpcError, match="not running"):
            cri.call("ReopenContainerLog", cri.messages.ReopenContainerLogRequest(container_id=container))


def wait_for(path: Path, text: str) -> None:
    """Wait until the log says so. Raises AssertionError."""
    deadline = time.monotonic() + 5
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{path} has no {text!r}"
        time.sleep(0.02)
