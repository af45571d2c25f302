"""`unikernel-shim config`: the effective configuration."""

from __future__ import annotations

from pathlib import Path

import click

from shim.cli import terminal


@click.command("config", epilog=terminal.EXIT_CODES)
@terminal.json_option("Print it as JSON.")
@click.pass_obj
def command(config_path: Path | None, as_json: bool) -> None:
    """Print the effective configuration, defaults included, as TOML."""
    import msgspec
    import tomli_w

    from shim import config

    found = msgspec.to_builtins(config.load(config_path), enc_hook=str)
    if as_json:
        terminal.print_json(found)
    else:
        click.echo(tomli_w.dumps(found), nl=False)
