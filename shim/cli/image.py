"""`unikernel-shim image`: its options. What they do is in image_build.py and image_inspect.py, imported on use."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from shim.cli import choices
from shim.cli.terminal import EXIT_CODES, json_option

#: `inspect` on what is no unikernel and would run all the same.
_ORDINARY = 3
_REFUSED = 1
_FILE = click.Path(path_type=Path)


@click.group("image", epilog=EXIT_CODES)
def command() -> None:
    """Make images of unikernels, and say how an image would be run."""


@command.command(epilog=EXIT_CODES)
@click.option("--kernel", required=True, type=_FILE, help="The kernel; its header says for which architecture.")
@click.option("--root", type=_FILE, metavar="DIR", help="A directory whose content becomes the image's.")
@click.option("--initrd", type=_FILE, help="An initrd.")
@click.option(
    "--block",
    "blocks",
    multiple=True,
    metavar="[DEVICE=]FILE[:/TARGET][:ro]",
    help="A disk, for the device of that name in the kernel's manifest, mounted at TARGET. Repeat for more.",
)
@click.option(
    "--monitor", metavar="NAME", shell_complete=choices.monitors, help="The monitor; default: what the kernel asks for."
)
@click.option(
    "--guest", metavar="NAME", shell_complete=choices.guests, help="The guest's family; default: what the kernel is."
)
@click.option("--memory", metavar="SIZE", help="The guest's memory: 64, 64Mi, 1Gi.")
@click.option("--cmdline", metavar="WORDS", help="Words to add to the guest's command line.")
@click.option(
    "--annotation",
    "annotations",
    multiple=True,
    metavar="K=V",
    help="Any other io.unikernel.* annotation (or of another prefix, which is then kept in the manifest alone).",
)
@click.option("--arg", "arguments", multiple=True, metavar="WORD", help="An argument of the guest; repeat for more.")
@click.option("--env", "environment", multiple=True, metavar="K=V", help="A variable of the guest's environment.")
@click.option("--name", default="", metavar="REF", help="What importers call it: registry.example/app:1.0.")
@click.option("--urunc", is_flag=True, help="Describe it for urunc as well: urunc.json and com.urunc.unikernel.*.")
@click.option(
    "--output", "-o", required=True, type=_FILE, metavar="FILE", help='The archive; "-" is the standard output.'
)
@click.option("--force", is_flag=True, help="Replace FILE where it is there.")
@json_option("Print what was written as JSON.")
@click.pass_obj
def build(
    config_path: Path | None,
    kernel: Path,
    root: Path | None,
    initrd: Path | None,
    blocks: tuple[str, ...],
    monitor: str | None,
    guest: str | None,
    memory: str | None,
    cmdline: str | None,
    annotations: tuple[str, ...],
    arguments: tuple[str, ...],
    environment: tuple[str, ...],
    name: str,
    urunc: bool,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Pack a kernel, and what it needs, into an archive that `ctr images import` and others take.

    The archive is an OCI image layout in a tar, the same bytes for the same files: every time in it is 1970, or what
    SOURCE_DATE_EPOCH says. The kernel is /unikernel/kernel in it, and /unikernel.json says how it is to be run, so a
    pod needs no annotation. An archive that a pod would be refused is not written.
    """
    from shim import config
    from shim.cli import image_build
    from shim.cli.image_contents import Request

    wishes = {"monitor": monitor, "guest": guest, "memory": memory, "cmdline": cmdline}
    text = image_build.build(
        Request(
            kernel=kernel,
            root=root,
            initrd=initrd,
            blocks=blocks,
            wishes={key: value for key, value in wishes.items() if value},
            annotations=annotations,
            arguments=arguments,
            environment=environment,
            name=name,
            urunc=urunc,
            output=output,
            force=force,
        ),
        config.load(config_path),
        as_json=as_json,
    )
    click.echo(text, nl=False, err=output == Path("-"))


@command.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Exit codes: 0 it would run as a unikernel, 3 as an ordinary container, 1 it would be refused or cannot be "
    "read, 2 the question makes no sense.",
)
@click.option("--annotation", "annotations", multiple=True, metavar="K=V", help="An annotation of the pod's.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Which of the image's platforms; default: this node's.")
@click.option("--name", default="", metavar="REF", help="Which of the archive's images.")
@json_option("Print it as JSON.")
@click.argument("source")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def inspect(
    config_path: Path | None,
    annotations: tuple[str, ...],
    platform: str,
    name: str,
    as_json: bool,
    source: str,
    arguments: tuple[str, ...],
) -> None:
    """Say how a container of SOURCE would be run, and why.

    SOURCE is an archive (of `image build`, `ctr images export`, `skopeo`, `docker save`; "-" reads it from the standard
    input), a directory with an OCI layout, a bundle, or a root directory. ARGUMENTS stand for the container's own, as
    a pod's `args`; for a root directory they are its whole command line. Options come before SOURCE.
    """
    from shim import config
    from shim.cli import image_inspect

    text, verdict = image_inspect.run(
        image_inspect.Request(
            source=source, annotations=annotations, platform=platform, name=name, arguments=arguments
        ),
        config.load(config_path),
        as_json=as_json,
    )
    click.echo(text, nl=False)
    sys.exit({"unikernel": 0, "ordinary": _ORDINARY}.get(verdict, _REFUSED))
