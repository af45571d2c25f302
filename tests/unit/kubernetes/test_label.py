"""The node's label, against a server that speaks as the cluster's API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from contrib.kubernetes.installer import label
from shim.errors import NodeFault, Unreachable


class Api(HTTPServer):
    """Answers `status` and keeps the last request."""

    status = 200
    asked: tuple[str, str | None, str | None, object] = ("", None, None, None)


class Handler(BaseHTTPRequestHandler):
    def do_PATCH(self) -> None:
        assert isinstance(self.server, Api)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked = (self.path, self.headers["Authorization"], self.headers["Content-Type"], body)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("secret\n")
    return tmp_path


@pytest.mark.parametrize("value", ["true", None])
def test_the_label_is_put_and_taken(api: Api, account: Path, value: str | None) -> None:
    label.put("worker-1", value, server=f"http://127.0.0.1:{api.server_port}", account=account)
    assert api.asked == (
        "/api/v1/nodes/worker-1",
        "Bearer secret",
        "application/merge-patch+json",
        {"metadata": {"labels": {"io.unikernel/shim": value}}},
    )


def test_a_refusal_names_the_right_that_is_missing(api: Api, account: Path) -> None:
    api.status = 403
    with pytest.raises(NodeFault, match="rbac"):
        label.put("worker-1", "true", server=f"http://127.0.0.1:{api.server_port}", account=account)


def test_nobody_there(account: Path) -> None:
    with pytest.raises(Unreachable):
        label.put("worker-1", "true", server="http://127.0.0.1:1", account=account)


def test_outside_a_cluster(monkeypatch: pytest.MonkeyPatch, account: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NodeFault, match="no pod"):
        label.put("worker-1", "true", account=account)
