"""What a shell completes, and the scripts that make it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from shim.cli.main import main


def completed(*words: str) -> list[str]:
    """What the last of these words is completed to."""
    *before, last = words
    return [item.value for item in ShellComplete(main, {}, "unikernel-shim", "_X").get_completions(list(before), last)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("run", "--monitor", "fire"), ["firecracker"]),
        (("run", "--guest", "un"), ["unikraft"]),
        (("run", "--dataplane", "m"), ["mirror", "macvtap"]),
        (("plan", "--dataplane", "b"), ["bridge"]),
        (("image", "build", "--monitor", ""), ["spt", "hvt", "qemu", "firecracker", "cloud-hypervisor"]),
        (("image", "in"), ["inspect"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("ps", "--no"), ["--no-trunc"]),
    ],
)
def test_choices_are_completed(words: tuple[str, ...], found: list[str]) -> None:
    assert completed(*words) == found


def test_a_service_that_does_not_answer_is_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}"\n')
    assert completed("--config", str(config), "check", "") == []
    config.write_text("run_dir = [")  # no configuration at all
    assert completed("--config", str(config), "logs", "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    asked = CliRunner().invoke(main, ["completion", shell])
    assert asked.exit_code == 0 and f"_UNIKERNEL_SHIM_COMPLETE={shell}_complete" in asked.stdout


def test_bash_takes_its_script() -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    done = subprocess.run(
        ["bash", "-c", f"{script}\ncomplete -p unikernel-shim"], capture_output=True, text=True, check=True, timeout=20
    )
    assert "_unikernel_shim_completion unikernel-shim" in done.stdout and done.stderr == ""


def test_no_script_for_other_shells() -> None:
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2
