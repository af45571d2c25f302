"""What a shell completes names of monitors and guests to. Whether one makes sense is for whoever runs it to say."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from shim.oci.support import GUESTS, MONITORS, monitors_of


def monitors(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every monitor."""
    return [CompletionItem(name) for name in MONITORS if name.startswith(incomplete)]


def guests(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every guest family, with the monitors that it runs on."""
    return [CompletionItem(name, help=", ".join(monitors_of(name))) for name in GUESTS if name.startswith(incomplete)]
