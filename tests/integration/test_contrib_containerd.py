"""contrib/containerd's files as containerd itself understands them, and what their page says of ways that do not work.

That pods run with them is shown by all other tests: their handlers are made from these files (`containerd.registered`).
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.integration import paths
from tests.integration.containerd import CONTRIB

_OLD, _NEW = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
FILES = {
    "1.6-podsandbox.toml": ("unikernel", ""),
    "1.7-podsandbox.toml": ("unikernel", ""),
    "2.x-sandbox-plugin.toml": ("unikernel", "unikernel"),
    "2.x-shim.toml": ("unikernel-shim", "shim"),
    "2.x-podsandbox.toml": ("unikernel-podsandbox", "podsandbox"),
}


def containerd(line: str, *arguments: str) -> str:
    program = paths.cached(f"containerd-{line}", "usr", "bin", "containerd")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def runtimes(line: str, file: Path) -> dict[str, Any]:
    """Every handler that containerd finds in its configuration."""
    plugins = tomllib.loads(containerd(line, "--config", str(file), "config", "dump"))["plugins"]
    found: dict[str, Any] = plugins[_NEW if line == "2" else _OLD]["containerd"]["runtimes"]
    return found


def configured(line: str, directory: Path, *imported: Path, appended: str = "") -> Path:
    """containerd's own default configuration, changed in nothing but that."""
    lines = [each for each in containerd(line, "config", "default").splitlines() if not each.startswith("imports")]
    file = directory / "config.toml"
    names = ", ".join(f'"{each}"' for each in imported)
    file.write_text("\n".join([f"imports = [{names}]", *lines, appended]))
    return file


def test_there_is_a_file_for_each_and_the_page_has_it() -> None:
    assert {file.name for file in CONTRIB.glob("*.toml")} == set(FILES)
    page = (CONTRIB / "README.md").read_text()
    for name, (handler, _) in FILES.items():
        assert any(f"`{name}`" in line and f"`{handler}`" in line for line in page.splitlines()), name


@pytest.mark.parametrize("name", FILES)
def test_containerd_understands_it_and_keeps_what_it_has(name: str, tmp_path: Path) -> None:
    line = name.partition("-")[0].removesuffix(".x")
    if line == "2":
        file = configured(line, tmp_path, CONTRIB / name)
    else:
        file = configured(line, tmp_path, appended=(CONTRIB / name).read_text())
    handler, sandboxer = FILES[name]
    found = runtimes(line, file)
    assert found.keys() == {"runc", handler}
    assert found[handler].get("sandboxer", "") == sandboxer
    assert found[handler]["runtime_type"] == "io.containerd.unikernel.v2"
    assert "io.unikernel.*" in found[handler]["pod_annotations"]
    assert "io.kubernetes.pod.terminationGracePeriod" in found[handler]["container_annotations"]
    if sandboxer == "unikernel":
        plugin = tomllib.loads(containerd(line, "--config", str(file), "config", "dump"))["proxy_plugins"]["unikernel"]
        assert (plugin["type"], plugin["address"]) == ("sandbox", "/run/unikernel-shim/shim.sock")


def test_all_of_2_x_at_once(tmp_path: Path) -> None:
    file = configured("2", tmp_path, CONTRIB / "2.x-*.toml")
    assert runtimes("2", file).keys() == {"runc", "unikernel", "unikernel-shim", "unikernel-podsandbox"}


@pytest.mark.parametrize("line", ["1.6", "1.7"])
def test_an_import_would_take_the_place_of_all_of_cri_in_1_x(line: str, tmp_path: Path) -> None:
    """Why these are appended. If this fails, containerd has become kinder."""
    named = tmp_path / "drop-in.toml"
    named.write_text("version = 2\n" + (CONTRIB / f"{line}-podsandbox.toml").read_text())
    assert runtimes(line, configured(line, tmp_path, named)).keys() == {"unikernel"}


def test_a_main_file_of_version_2_would_be_forgotten_by_2_x(tmp_path: Path) -> None:
    """Why it must say 3. If this fails, containerd has become kinder."""
    runc = f'[plugins."{_OLD}".containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n'
    settings = f'{runc}[plugins."{_OLD}".containerd.runtimes.runc.options]\nSystemdCgroup = true\n'
    main = tmp_path / "config.toml"
    main.write_text("version = 2\n" + settings)
    assert runtimes("2", main)["runc"]["options"]["SystemdCgroup"]
    migrated = containerd("2", "--config", str(main), "config", "migrate")
    imports = f'imports = ["{CONTRIB / "2.x-shim.toml"}"]\n'
    main.write_text(f"version = 2\n{imports}{settings}")
    assert not runtimes("2", main)["runc"]["options"]["SystemdCgroup"]
    main.write_text(imports + "\n".join(each for each in migrated.splitlines() if not each.startswith("imports")))
    found = runtimes("2", main)
    assert found["runc"]["options"]["SystemdCgroup"] and "unikernel-shim" in found
