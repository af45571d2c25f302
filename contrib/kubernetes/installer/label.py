"""The node's label, by which a RuntimeClass sends its pods: set and removed over the cluster's API.

With the pod's own account, as every client in a cluster does it (Kubernetes, "Accessing the API from a Pod").
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from shim.errors import NodeFault, Unreachable

LABEL = "io.unikernel/shim"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATIENCE = 30.0


def patch(value: str | None) -> bytes:
    """What makes the label `value`, or takes it away (RFC 7396: null removes)."""
    return json.dumps({"metadata": {"labels": {LABEL: value}}}).encode()


def put(name: str, value: str | None, *, server: str = "", account: Path = _ACCOUNT) -> None:
    """Give the node `name` the label, or take it away with None. `server` is the API's URL, "" the cluster's own.

    Raises NodeFault where that is refused, and Unreachable.
    """
    if not server:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise NodeFault("this is no pod of a cluster", subject="the node's label", remedy="leave --node out")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    request = urllib.request.Request(  # noqa: S310 - the cluster's own server
        f"{server}/api/v1/nodes/{name}",
        data=patch(value),
        method="PATCH",
        headers={
            "Content-Type": "application/merge-patch+json",
            "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
        },
    )
    authority = account / "ca.crt"
    context = ssl.create_default_context(cafile=str(authority)) if server.startswith("https:") else None
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE, context=context).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            raise NodeFault(
                f"the API answers {error.code}",
                subject=f"label of node {name}",
                remedy="its service account needs `patch` on nodes (rbac.yaml)" if error.code == 403 else "",
            ) from error
    except OSError as error:
        raise Unreachable(f"the API does not answer: {error}", subject=f"label of node {name}") from error
