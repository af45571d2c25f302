"""Which containerd is to be told of which container.

A courier hears from the containerd that runs it where events go; the Task call that follows does not say.
"""

from __future__ import annotations


class Destinations:
    """Event addresses by containerd namespace and container id."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, str], str] = {}

    def learn(self, namespace: str, container: str, address: str) -> None:
        """Remember where events of `container` go."""
        if address:
            self._addresses[namespace, container] = address

    def of(self, namespace: str, container: str) -> str:
        """The address, "" for the configured containerd."""
        return self._addresses.get((namespace, container), "")

    def forget(self, namespace: str, container: str) -> None:
        """Forget a container; harmless when it is unknown."""
        self._addresses.pop((namespace, container), None)
