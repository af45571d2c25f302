"""The configuration file: defaults, overrides, and every way it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from shim import config
from shim.errors import InvalidRequest
from shim.network.addressing.interfaces import AUTO, DATAPLANES


def test_an_empty_file_is_all_defaults() -> None:
    found = config.parse("", "test")
    assert found == config.Config()
    assert found.grpc_socket == Path("/run/unikernel-shim/shim.sock")
    assert found.ttrpc_socket == Path("/run/unikernel-shim/shim.ttrpc")


def test_every_dataplane_there_is_can_be_chosen() -> None:
    assert get_args(config.Dataplane) == (AUTO, *DATAPLANES)


def test_settings_are_read() -> None:
    found = config.parse('run_dir = "/tmp/x"\n[monitors.qemu]\naccel = "tcg"\n[engine]\npath = "runc"\n', "test")
    assert found.run_dir == Path("/tmp/x")
    assert found.monitors.qemu.accel == "tcg"
    assert found.monitors.spt.path == "solo5-spt"
    assert found.monitors.firecracker.path == "firecracker"
    assert found.engine.path == "runc"
    assert config.parse("[tracing]\nendpoint = 'https://[::1]:4317'\nsample = 0", "x").tracing.sample == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("run_dirr = '/x'", "run_dirr"),
        ("[monitors.qemu]\naccel = 'xen'", "xen"),
        ("[guest]\nmemory = 'much'", "memory"),
        ("[guest]\nmemory = 0", "memory"),
        ("run_dir = 'relative'", "run_dir"),
        ("[monitors.qemu]\npowerdown = -1", "powerdown"),
        ("[monitors.qemu]\npowerdown = nan", "powerdown"),
        ("[monitors.qemu]\npowerdown = inf", "powerdown"),
        ("[storage]\ndirectory = 'relative'", "storage.directory"),
        ("[storage]\nlimit = -1", "storage.limit"),
        ("[monitors.cloud-hypervisor]\npowerdown = -1", "cloud-hypervisor.powerdown"),
        ("[monitors.cloud_hypervisor]\npath = 'x'", "cloud_hypervisor"),
        ("[monitors.firecracker]\npowerdown = 1", "powerdown"),
        ("[tracing]\nendpoint = '127.0.0.1:4317'", "tracing.endpoint"),
        ("[tracing]\nendpoint = 'http://collector'", "tracing.endpoint"),
        ("[tracing]\nendpoint = 'http://collector:4317/v1/traces'", "tracing.endpoint"),
        ("[tracing]\nendpoint = 'http://collector:port'", "tracing.endpoint"),
        ("[tracing]\nendpoint = 'unix:///run/collector.sock'", "tracing.endpoint"),
        ("[tracing]\nsample = 1.5", "tracing.sample"),
        ("[check]\nevery = -1", "check.every"),
        ("[check]\nevery = 0.5", "check.every"),
        ("[check]\nevery = nan", "check.every"),
        ("[tracing]\nsample = nan", "tracing.sample"),
        ("not toml", "line 1"),
    ],
)
def test_what_is_wrong_is_named(text: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word) as raised:
        config.parse(text, "the-file")
    assert "the-file" in str(raised.value)


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="no such"):
        config.load(tmp_path / "none.toml")
    monkeypatch.setenv("UNIKERNEL_SHIM_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(InvalidRequest, match=r"other\.toml"):
        config.load()
