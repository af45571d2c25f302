"""Which containerd is to be told of which container.

A courier hears from the containerd that runs it where events go; the Task call that follows does not say.
"""

from __future__ import annotations

import time


class Destinations:
    """Event addresses by containerd namespace and container id, and which of these containers are still to come."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, str], str] = {}
        self._announced: dict[tuple[str, str], float] = {}

    def learn(self, namespace: str, container: str, address: str) -> None:
        """Remember where events of `container` go, which containerd is about to create."""
        self._announced[namespace, container] = time.monotonic()
        if address:
            self._addresses[namespace, container] = address

    def of(self, namespace: str, container: str) -> str:
        """The address for a container that is being created, "" for the configured containerd."""
        self._announced.pop((namespace, container), None)
        return self._addresses.get((namespace, container), "")

    def forget(self, namespace: str, container: str) -> None:
        """Forget a container; harmless when it is unknown."""
        self._announced.pop((namespace, container), None)
        self._addresses.pop((namespace, container), None)

    @property
    def announced(self) -> float:
        """When the latest container was learned of that has not come yet, on the monotonic clock; 0.0 without any."""
        return max(self._announced.values(), default=0.0)
