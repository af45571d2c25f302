"""Structured logs: one event a line, JSON for machines, key=value on a terminal.

`bound(sandbox=…, container=…)` attaches ids to every line of the current task, so no call site repeats them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

import structlog

Logger = structlog.typing.FilteringBoundLogger


def configure(level: str = "info", *, json: bool | None = None, ids: Mapping[str, str] | None = None) -> None:
    """Set up logging to stderr; `json` defaults to whether stderr is not a terminal. `ids` are on every line."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)
    )
    common = dict(ids or {})
    processors: list[structlog.typing.Processor] = [
        lambda logger, method, event: {**common, **event},
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> Logger:
    """The logger of one module; `name` is shown as `module`."""
    logger: Logger = structlog.get_logger(module=name)
    return logger


def bound(**ids: str) -> AbstractContextManager[None]:
    """Attach `ids` to every line logged by the current asyncio task until the context ends."""
    return structlog.contextvars.bound_contextvars(**ids)
