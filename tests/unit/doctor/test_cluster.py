"""RuntimeClasses, by a kubectl that says what it is told to: a cluster cannot be had here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shim.doctor import cluster
from shim.doctor.cluster import Cluster, RuntimeClass
from shim.doctor.finding import Outcome
from shim.errors import TimedOut
from shim.process.spawn import Completed


def listing(*items: object) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()


OURS = {
    "metadata": {"name": "unikernel"},
    "handler": "unikernel",
    "overhead": {"podFixed": {"memory": "88Mi", "cpu": "100m"}},
}
KATA = {"metadata": {"name": "kata"}, "handler": "kata"}


@pytest.fixture(autouse=True)
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubectl"
    path.write_text("")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return path


async def asked(done: Completed | None) -> Cluster:
    async def run(argv: Sequence[str], *, timeout: float) -> Completed:
        if done is None:
            raise TimedOut(f"did not end within {timeout:g} s", subject=argv[0])
        return done

    return await cluster.observe(run)


async def test_what_kubectl_lists() -> None:
    seen = await asked(Completed(0, listing(OURS, KATA), b""))
    assert seen.classes == (
        RuntimeClass(name="unikernel", handler="unikernel", overhead="88Mi"),
        RuntimeClass(name="kata", handler="kata"),
    )


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (None, "did not end"),
        (Completed(1, b"", b"W: odd\nThe connection to the server was refused\n"), "refused"),
        (Completed(1, b"", b""), "exit status 1"),
        (Completed(0, b"no JSON", b""), "cannot be read"),
        (Completed(0, b'{"items": [{"metadata": {}}]}', b""), "cannot be read"),
        (Completed(0, b"[]", b""), "cannot be read"),
    ],
)
async def test_a_kubectl_that_does_not_work(done: Completed | None, said: str) -> None:
    seen = await asked(done)
    (found,) = cluster.judge(seen, ["unikernel"])
    assert found.outcome is Outcome.UNSEEN and said in found.what


async def test_without_kubectl(kubectl: Path) -> None:
    kubectl.unlink()
    (found,) = cluster.judge(await asked(None), ["unikernel"])
    assert found.outcome is Outcome.UNSEEN and "not installed" in found.what


def test_classes_of_ours() -> None:
    seen = Cluster(
        classes=(
            RuntimeClass(name="a", handler="unikernel", overhead="88Mi"),
            RuntimeClass(name="b", handler="unikernel"),
            RuntimeClass(name="c", handler="unikernel-shim"),
            RuntimeClass(name="d", handler="kata"),
        )
    )
    found = cluster.judge(seen, ["unikernel"])
    assert [each.outcome for each in found] == [Outcome.GOOD, Outcome.GOOD, Outcome.DOUBTFUL]
    assert "88Mi" in found[0].what and "no overhead" in found[1].what and "not work on this node" in found[2].what


@pytest.mark.parametrize("handlers", [["unikernel"], []])
def test_where_there_is_none(handlers: list[str]) -> None:
    (found,) = cluster.judge(Cluster(classes=(RuntimeClass(name="d", handler="kata"),)), handlers)
    assert found.outcome is Outcome.DOUBTFUL and "kind: RuntimeClass" in found.fix and "handler: unikernel" in found.fix
