"""`unikernel-shim`: one command, a subcommand for each thing people do.

Each subcommand imports what it needs when it runs, so that `--help` and the small ones stay quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from shim import __version__
from shim.cli.image import image
from shim.config import Dataplane
from shim.errors import Fault, InvalidRequest, ShimError

_USAGE_ERROR, _NODE_ERROR = 2, 1
_DATAPLANE = click.Choice(get_args(Dataplane))


class _Group(click.Group):
    """Turns our errors into one line on stderr and an exit code: 2 for the caller's, 1 for anything else."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ShimError as error:
            click.echo(f"unikernel-shim: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                click.echo(f"  {note}", err=True)
            context.exit(
                _USAGE_ERROR if isinstance(error, InvalidRequest) or error.fault is Fault.USER else _NODE_ERROR
            )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
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


@main.command()
@click.option(
    "--pod", metavar="NAMESPACE/ID", help="Serve this pod alone, and end with it: what couriers do with grouping = pod."
)
@click.pass_obj
def serve(config_path: Path | None, pod: str | None) -> None:
    """Run the node's service until SIGTERM."""
    from shim import config, daemon

    daemon.serve(config.load(config_path), pod)


@main.command("config")
@click.pass_obj
def show_config(config_path: Path | None) -> None:
    """Print the effective configuration, defaults included, as TOML."""
    import msgspec
    import tomli_w

    from shim import config

    click.echo(tomli_w.dumps(msgspec.to_builtins(config.load(config_path), enc_hook=str)), nl=False)


@main.command()
@click.option("--netns", required=True, metavar="NAME|PATH", help="The namespace to read.")
@click.option("--dataplane", type=_DATAPLANE, help="How a tap is joined to its interface.")
@click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="One to plan for; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(
    config_path: Path | None, netns: str, dataplane: str | None, interfaces: tuple[str, ...], as_json: bool
) -> None:
    """Read a namespace and print what would be done to it, and what the guest would be told. Touches nothing."""
    from shim import config
    from shim.cli import plan as command

    chosen = dataplane or config.load(config_path).network.dataplane
    click.echo(command.text(netns, chosen, interfaces or None, as_json=as_json))


@main.command()
@click.argument("pod")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.pass_obj
def inspect(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Print what the service knows of POD: NAME, NAMESPACE/NAME, or the beginning of a sandbox's id."""
    from shim import config
    from shim.cli import inspect as command

    click.echo(command.text(config.load(config_path), pod, as_json=as_json), nl=False)


@main.command()
@click.argument("pod")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def check(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Prove that POD's guest answers, that its gateway does, and that the router knows the guest by its MAC.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's id. Exits with 0 when nothing is wrong, 1 when
    something is, 2 when there is no such pod or nothing in it to be checked.
    """
    from shim import config
    from shim.cli import check as command

    text, failed = command.run(config.load(config_path), pod, as_json=as_json)
    click.echo(text, nl=False)
    sys.exit(_NODE_ERROR if failed else 0)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--netns", metavar="NAME|PATH", help="The namespace whose interfaces the guest takes over; none: no network."
)
@click.option("--dataplane", type=_DATAPLANE, help="How a tap is joined to its interface.")
@click.option("--nics", metavar="LIST", help="Which interfaces: eth0,net1, or DEVICE=INTERFACE for a manifest's.")
@click.option("--monitor", help="spt, hvt, qemu, firecracker or cloud-hypervisor; default: what the kernel asks for.")
@click.option("--guest", help="solo5 or linux; default: what the kernel is.")
@click.option("--memory", metavar="MB", help="The guest's memory.")
@click.option("--initrd", type=click.Path(path_type=Path), help="An initrd for a Linux guest.")
@click.option("--cmdline", default="", help="Words to add to a Linux guest's command line.")
@click.argument("kernel", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    config_path: Path | None,
    netns: str | None,
    dataplane: str | None,
    nics: str | None,
    monitor: str | None,
    guest: str | None,
    memory: str | None,
    initrd: Path | None,
    cmdline: str,
    kernel: Path,
    arguments: tuple[str, ...],
) -> None:
    """Run KERNEL in the foreground with no containerd; Ctrl-C asks it to power down, a second one kills it.

    Exits with the monitor's exit code.
    """
    from shim import config
    from shim.cli import run as command

    wishes = {
        "monitor": monitor,
        "guest": guest,
        "memory": memory,
        "cmdline": cmdline,
        "dataplane": dataplane,
        "nics": nics,
    }
    sys.exit(
        command.foreground(
            config.load(config_path),
            kernel,
            arguments,
            netns=netns,
            initrd=initrd,
            wishes={key: value for key, value in wishes.items() if value},
        )
    )


main.add_command(image)


if __name__ == "__main__":
    main()
