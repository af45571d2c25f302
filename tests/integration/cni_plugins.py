"""The reference CNI plugins, run as a runtime runs them (CNI specification 1.0.0); a namespace is their node."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from tests.integration import paths
from tests.integration.layouts.namespaces import NAMED

VERSION = "1.0.0"


class PluginFailed(Exception):
    """A plugin said no; the text is what it said."""


class Network:
    """A chain of plugins on a node, as a network configuration lists them."""

    def __init__(self, node: str, name: str, *plugins: dict[str, Any]) -> None:
        self._node, self._name, self._plugins = node, name, plugins
        self._results: dict[tuple[str, str], Any] = {}

    def add(self, pod: str, interface: str = "eth0") -> dict[str, Any]:
        """Attach a pod's namespace; the last plugin's result. Raises PluginFailed."""
        result: dict[str, Any] | None = None
        for plugin in self._plugins:
            result = self._run("ADD", plugin, pod, interface, result)
        assert result is not None
        self._results[pod, interface] = result
        return result

    def delete(self, pod: str, interface: str = "eth0") -> None:
        """Detach it. Raises PluginFailed."""
        result = self._results.pop((pod, interface))
        for plugin in reversed(self._plugins):
            self._run("DEL", plugin, pod, interface, result)

    def _run(self, command: str, plugin: dict[str, Any], pod: str, interface: str, result: Any) -> Any:
        directory = paths.cached("cni", "usr", "lib", "cni")
        configuration = {"cniVersion": VERSION, "name": self._name, **plugin}
        if result is not None:
            configuration["prevResult"] = result
        done = subprocess.run(
            ["ip", "netns", "exec", self._node, directory / plugin["type"]],
            input=json.dumps(configuration),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": pod,
                "CNI_NETNS": str(NAMED / pod),
                "CNI_IFNAME": interface,
                "CNI_PATH": str(directory),
                "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            },
        )
        if done.returncode:
            raise PluginFailed(f"{plugin['type']} {command}: {done.stdout.strip()} {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None
