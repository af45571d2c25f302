"""A sandbox for people and their programs, as one JSON object. docs/commands.md says what its keys mean."""

from __future__ import annotations

from typing import Any

import msgspec

from shim.clock import rfc3339
from shim.sandbox.container import Container
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status


def describe(sandbox: Sandbox) -> dict[str, Any]:
    """Everything that is known of it, in values that JSON has."""
    namespace, name = sandbox.pod_name
    return {
        "id": sandbox.id,
        "namespace": sandbox.namespace,
        "pod": {"namespace": namespace, "name": name},
        "sandboxer": _sandboxer(sandbox),
        "netns": netns_of(sandbox),
        "created_at": rfc3339(sandbox.created_at),
        "stopped_at": rfc3339(sandbox.exit.at) if sandbox.exit else None,
        "containers": [_container(container) for container in sandbox.containers.values()],
        "unikernel": _unikernel(sandbox.unikernel) if sandbox.unikernel else None,
    }


def _sandboxer(sandbox: Sandbox) -> str:
    """As a runtime's configuration calls what the pod was made by; "" outside CRI."""
    if sandbox.pod is not None:
        return "shim" if sandbox.pod.bundle else "unikernel"
    return "podsandbox" if sandbox.pod_name[1] else ""


def netns_of(sandbox: Sandbox) -> str:
    """The path of its network namespace, "" where it has none of its own."""
    if sandbox.pod is not None:
        return sandbox.pod.netns
    if sandbox.unikernel is not None and sandbox.unikernel.record.plumbing is not None:
        return sandbox.unikernel.record.plumbing.netns
    return next((container.netns for container in sandbox.containers.values() if container.netns), "")


def _container(container: Container) -> dict[str, Any]:
    exit = container.init.exit
    ended = container.init.status is Status.STOPPED
    return {
        "id": container.id,
        "name": container.name,
        "unikernel": container.record.unikernel,
        "status": container.init.status.value,
        "pid": container.init.pid,
        "bundle": str(container.record.bundle),
        "exit": {"status": exit.status, "at": rfc3339(exit.at)} if ended else None,
    }


def _unikernel(container: Container) -> dict[str, Any]:
    plumbing, command = container.record.plumbing, container.command
    return {
        "container": container.id,
        "guest": container.record.guest,
        "monitor": container.record.monitor,
        "command": list(command),
        "words": container.last_words(),
        "nics": [msgspec.to_builtins(nic) for nic in plumbing.plan.nics] if plumbing else [],
        "notes": list(plumbing.plan.notes) if plumbing else [],
        "plumbed_in": round(plumbing.took, 6) if plumbing and plumbing.took else None,
        "check": _check(container),
    }


def _check(container: Container) -> dict[str, Any] | None:
    report = container.checked
    if report is None:
        return None
    return {
        "at": rfc3339(report.at),
        "took": round(report.took, 6),
        "failed": report.failed,
        "findings": [{**msgspec.to_builtins(finding), "failed": finding.failed} for finding in report.findings],
    }
