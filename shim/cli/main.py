"""`unikernel-shim`: one command, a subcommand for each thing people do.

A subcommand lives in a module of its own, which is imported when it is asked for: `--help` alone reads them all. What a
module needs to run, it imports when it runs.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
from pathlib import Path
from typing import Final

import click

from shim import __version__
from shim.cli.terminal import EXIT_CODES
from shim.errors import Fault, ShimError

#: Exit codes, which docs/commands.md tells: something is wrong, what was asked makes no sense, Ctrl-C.
NODE_ERROR: Final = 1
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT

# A subcommand's name, and the module whose `command` it is, in the order that --help has them.
_COMMANDS: Final = {
    "serve": "serve",
    "config": "show_config",
    "ps": "ps",
    "inspect": "inspect",
    "check": "check",
    "topology": "topology.command",
    "doctor": "doctor",
    "events": "events",
    "logs": "logs",
    "console": "console",
    "plan": "plan",
    "run": "run",
    "image": "image",
    "bench": "bench",
    "completion": "completion",
}


class _Group(click.Group):
    """Loads subcommands when they are asked for, and turns our errors into one line on stderr and an exit code."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = importlib.import_module(f"shim.cli.{_COMMANDS[name]}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, context: click.Context) -> object:
        # In a locale that lacks a character it is shown by its number.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)
        except ShimError as error:
            click.echo(f"unikernel-shim: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                click.echo(f"  {note}", err=True)
            context.exit(USAGE_ERROR if error.fault is Fault.USER else NODE_ERROR)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="unikernel-shim")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Configuration file; default: $UNIKERNEL_SHIM_CONFIG, then /etc/unikernel-shim/config.toml.",
)
@click.pass_context
def main(context: click.Context, config_path: Path | None) -> None:
    """Run unikernels as Kubernetes pods."""
    context.obj = config_path


if __name__ == "__main__":
    main()
