"""`unikernel-shim completion`: what makes a shell complete subcommands, options, and the names of pods."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from shim.cli import terminal

_PROGRAM: Final = "unikernel-shim"
_VARIABLE: Final = "_UNIKERNEL_SHIM_COMPLETE"  # what click derives from the program's name


@click.command("completion", epilog=terminal.EXIT_CODES)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script for SHELL that completes this command.

    \b
    bash (4.4 or later):  source <(unikernel-shim completion bash)
    zsh:                  source <(unikernel-shim completion zsh)
    fish:                 unikernel-shim completion fish | source

    Put that into the shell's start-up file, or the output where the shell looks for completions
    (/etc/bash_completion.d/unikernel-shim).
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
