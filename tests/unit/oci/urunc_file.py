"""What images made for urunc say of themselves, as the tools that make them write it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def annotated(values: Mapping[str, str]) -> dict[str, str]:
    return {f"com.urunc.unikernel.{name}": encoded(value) for name, value in values.items()}


def file(values: Mapping[str, str]) -> bytes:
    """As bunny writes it (nubificus/bunny, hops/package.go)."""
    return json.dumps(annotated(values)).encode()
