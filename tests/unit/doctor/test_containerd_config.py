"""containerd's configuration, right and wrong in every way known, for each line of versions."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.doctor import containerd_config as cc
from shim.doctor import containerd_settings as cs
from shim.doctor import stanzas
from shim.doctor.containerd_config import Courier
from shim.doctor.containerd_settings import Settings, Source
from shim.doctor.finding import Finding, Outcome

MAIN = Path("/etc/containerd/config.toml")
SOCKET = Path("/run/unikernel-shim/shim.sock")
COURIER = Courier(path="/usr/local/bin/containerd-shim-unikernel-v2")
V16, V17, V21, V22, V23 = (1, 6), (1, 7), (2, 1), (2, 2), (2, 3)
OURS = 'runtime_type = "io.containerd.unikernel.v2"'
RUNC = 'runtime_type = "io.containerd.runc.v2"'


def source(text: str, name: Path = MAIN) -> Source:
    return Source(name, tomllib.loads(text))


def runtime(name: str, body: str, table: str = stanzas.RUNTIME_TABLE) -> str:
    return f'[plugins."{table}".containerd.runtimes.{name}]\n{body}\n'


def full(sandboxer: str = "unikernel", table: str = stanzas.RUNTIME_TABLE) -> str:
    return stanzas.stanza(sandboxer, table, SOCKET)


def settled(text: str, line: cs.Version = V21, *imported: str) -> Settings:
    files = [source(text), *(source(each, MAIN.parent / f"{number}.toml") for number, each in enumerate(imported))]
    return cs.settle(files, line)


def judged(text: str, line: cs.Version = V21, *imported: str, courier: Courier = COURIER) -> list[Finding]:
    return cc.judge(settled(text, line, *imported), SOCKET, courier)


def outcomes(findings: list[Finding]) -> dict[str, Outcome]:
    return {finding.subject: finding.outcome for finding in findings}


def only(findings: list[Finding], outcome: Outcome) -> Finding:
    (found,) = (each for each in findings if each.outcome is outcome)
    return found


OLD = f"version = 2\n{runtime('runc', RUNC, stanzas.CRI_TABLE)}"


@pytest.mark.parametrize(
    ("text", "line", "handler"),
    [
        (f"version = 3\n{full()}", V21, "unikernel"),
        (f"version = 3\n{full('shim')}", V21, "unikernel-shim"),
        (f"version = 3\n{full('podsandbox')}", V22, "unikernel-podsandbox"),
        (f"version = 4\n{full()}", V23, "unikernel"),
        (f"version = 2\n{full()}", V21, "unikernel"),
        (full(), V21, "unikernel"),
        (full(), V23, "unikernel"),
        (f"version = 2\n{full(table=stanzas.CRI_TABLE)}", V23, "unikernel"),
        (f"version = 2\n{full(table=stanzas.CRI_TABLE)}", V21, "unikernel"),
        (f"{OLD}{full('podsandbox', stanzas.CRI_TABLE)}", V16, "unikernel"),
        (f"{OLD}{full('podsandbox', stanzas.CRI_TABLE)}", V17, "unikernel"),
    ],
)
def test_what_is_right(text: str, line: cs.Version, handler: str) -> None:
    assert outcomes(judged(text, line)) == {f"handler {handler}": Outcome.GOOD}
    assert list(cc.working(settled(text, line), SOCKET, COURIER)) == [handler]


def test_an_import_adds_to_a_containerd_2() -> None:
    assert outcomes(judged("version = 3\nroot = '/x'", V21, f"version = 3\n{full()}")) == {
        "handler unikernel": Outcome.GOOD
    }


@pytest.mark.parametrize("line", [V16, V17])
def test_an_import_takes_the_place_of_all_that_containerd_1_was_told_of_cri(line: cs.Version) -> None:
    found = judged(OLD, line, f"version = 2\n{full('podsandbox', stanzas.CRI_TABLE)}")
    assert outcomes(found) == {"default runtime": Outcome.BAD, "handler unikernel": Outcome.GOOD}
    assert "runtimes.runc]" in only(found, Outcome.BAD).fix


@pytest.mark.parametrize("line", [V21, V22])
def test_files_of_two_versions_before_23(line: cs.Version) -> None:
    """Seen with 2.1.9: what the older file says of CRI is not read."""
    main = f"version = 2\n{runtime('other', RUNC, stanzas.CRI_TABLE)}"
    found = judged(main, line, f"version = 3\n{full()}")
    assert outcomes(found) == {"config.toml": Outcome.DOUBTFUL, "handler unikernel": Outcome.GOOD}
    older = judged("version = 3", line, f"version = 2\n{full(table=stanzas.CRI_TABLE)}")
    assert outcomes(older) == {"0.toml": Outcome.DOUBTFUL, "handler unikernel": Outcome.BAD}


def test_files_of_two_versions_from_23_on() -> None:
    older = judged("version = 4", V23, f"version = 2\n{full(table=stanzas.CRI_TABLE)}")
    assert outcomes(older) == {"handler unikernel": Outcome.GOOD}
    newer = judged("version = 2", V23, f"version = 3\n{full()}")
    assert outcomes(newer) == {"0.toml": Outcome.BAD, "handler unikernel": Outcome.GOOD}


@pytest.mark.parametrize(("version", "line"), [(3, V17), (4, V21), (4, V22), (5, V23)])
def test_a_version_that_is_too_new(version: int, line: cs.Version) -> None:
    assert outcomes(judged(f"version = {version}\n{full()}", line))["config.toml"] is Outcome.BAD


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (V21, f"version = 3\n{full(table=stanzas.CRI_TABLE)}"),
        (V17, f"version = 2\n{runtime('unikernel', OURS)}"),
        (V17, runtime("unikernel", OURS, stanzas.CRI_TABLE)),
    ],
)
def test_a_table_that_is_not_read(line: cs.Version, text: str) -> None:
    found = only([each for each in judged(text, line) if "handler" in each.subject], Outcome.BAD)
    assert "not read here" in found.what and settled(text, line).table in found.fix


@pytest.mark.parametrize("line", [V16, V17, V21, V22, V23])
@pytest.mark.parametrize(
    "text", ["version = 2", "version = 2\nimports = ['conf.d/*.toml']", "version = 2\nroot = '/x'"]
)
def test_a_containerd_that_does_not_know_us_is_told_what_to_add(line: cs.Version, text: str) -> None:
    found = only(judged(text, line), Outcome.BAD)
    assert found.subject == "handler" and "systemctl restart containerd" in found.fix
    added = found.fix.partition("<<'EOF'\n")[2].partition("EOF\n")[0]
    whole = [text, added] if "imports" in text and line >= V21 else [text + added]
    assert not [each for each in judged(whole[0], line, *whole[1:]) if each.outcome is not Outcome.GOOD]


@pytest.mark.parametrize("line", [V17, V21, V23])
def test_where_there_is_no_file_one_is_written(line: cs.Version) -> None:
    settings = cs.settle([Source(MAIN)], line)
    found = only(cc.judge(settings, SOCKET, COURIER), Outcome.BAD)
    assert f"no {MAIN}" in found.what
    text = found.fix.partition("<<'EOF'\n")[2].partition("EOF\n")[0]
    assert not [each for each in judged(text, line) if each.outcome is not Outcome.GOOD]


def test_the_file_that_dockers_packages_install() -> None:
    found = judged('disabled_plugins = ["cri"]', V21)
    assert outcomes(found) == {"CRI": Outcome.BAD, "handler": Outcome.BAD}
    assert stanzas.RUNTIME_TABLE in found[1].fix and "disabled_plugins" in found[0].fix


@pytest.mark.parametrize("name", ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"])
def test_a_cri_that_is_disabled(name: str) -> None:
    found = judged(f"version = 3\ndisabled_plugins = ['io.containerd.x', '{name}']\n{full()}")
    assert outcomes(found) == {"CRI": Outcome.BAD, "handler unikernel": Outcome.GOOD}


@pytest.mark.parametrize("line", [V16, V17])
def test_a_sandbox_plugin_stops_containerd_1(line: cs.Version) -> None:
    found = judged(f"{OLD}{stanzas.plugin(SOCKET)}{full('podsandbox', stanzas.CRI_TABLE)}", line)
    assert outcomes(found) == {"plugin": Outcome.BAD, "handler unikernel": Outcome.GOOD}


@pytest.mark.parametrize("type_", ["'io.containerd.unikernel.v1'", "'containerd-shim-unikernel-v2'", "7", "''"])
def test_a_wrong_runtime_type(type_: str) -> None:
    table = runtime("unikernel-shim", f'runtime_type = {type_}\nsandboxer = "shim"')
    found = judged(f"version = 3\n{table}")
    assert found[0].outcome is Outcome.BAD and stanzas.RUNTIME_TYPE in found[0].fix


def test_a_handler_of_somebody_elses_is_not_ours() -> None:
    other = runtime("kata", 'runtime_type = "io.containerd.kata.v2"')
    assert outcomes(judged(f"version = 3\n{other}")) == {"handler": Outcome.BAD}


PLUGIN = {
    "no plugin": ("", "no [proxy_plugins.unikernel]"),
    "another type": (f'[proxy_plugins.unikernel]\ntype = "snapshot"\naddress = "{SOCKET}"\n', "'snapshot'"),
    "no type": (f'[proxy_plugins.unikernel]\naddress = "{SOCKET}"\n', "None"),
    "another address": (
        '[proxy_plugins.unikernel]\ntype = "sandbox"\naddress = "/run/other.sock"\n',
        "/run/other.sock",
    ),
    "a scheme": (f'[proxy_plugins.unikernel]\ntype = "sandbox"\naddress = "unix://{SOCKET}"\n', "unix://"),
    "no table": ("proxy_plugins = 7\n", "no [proxy_plugins.unikernel]"),
}


@pytest.mark.parametrize(("text", "said"), PLUGIN.values(), ids=PLUGIN)
def test_a_wrong_sandbox_plugin(text: str, said: str) -> None:
    table = runtime("unikernel", f'runtime_type = "{stanzas.RUNTIME_TYPE}"\nsandboxer = "unikernel"')
    found = [each for each in judged(f"version = 3\n{text}{table}") if each.outcome is Outcome.BAD]
    assert said in found[0].what and f'address = "{SOCKET}"' in found[0].fix


def test_what_the_shim_binary_lacks() -> None:
    text = f"version = 3\n{full('shim')}"
    assert "PATH" in only(judged(text, courier=Courier()), Outcome.BAD).what
    broken = Courier(path="/bin/x", runs=False, fault="its interpreter '/none' is not there")
    assert "interpreter" in only(judged(text, courier=broken), Outcome.BAD).what
    assert outcomes(judged(text, courier=Courier(path="/bin/x", fault="it is another version's"))) == {
        "handler unikernel-shim": Outcome.GOOD
    }
    assert outcomes(judged(f"version = 3\n{full()}", courier=Courier())) == {"handler unikernel": Outcome.GOOD}
    own = text.replace("[plugins", "#", 0) + 'runtime_path = "/opt/x"\n'
    assert outcomes(judged(own, courier=Courier())) == {"handler unikernel-shim": Outcome.GOOD}


def test_a_handler_that_works_makes_others_merely_doubtful() -> None:
    found = judged(f"version = 3\n{full()}{full('shim')}", courier=Courier())
    assert outcomes(found) == {"handler unikernel": Outcome.GOOD, "handler unikernel-shim": Outcome.DOUBTFUL}


def test_streaming_with_a_pause_container() -> None:
    found = judged(f'version = 3\n{full("podsandbox")}io_type = "streaming"\n')
    assert "streaming" in only(found, Outcome.BAD).what


def test_a_sandboxer_of_containerd_2_in_containerd_1() -> None:
    found = judged(f"{OLD}{full('shim', stanzas.CRI_TABLE)}", V17)
    assert outcomes(found) == {"handler unikernel": Outcome.DOUBTFUL}


@pytest.mark.parametrize("key", stanzas.ANNOTATIONS)
@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (None, "io.unikernel.*"),
        ("[]", "io.unikernel.*"),
        ("'io.unikernel.*'", "io.unikernel.*"),
        ("['com.urunc.unikernel.*', 'io.kubernetes.*']", "io.unikernel.*"),
        ("['io.unikernel.kernel', 'io.*']", "com.urunc.unikernel.*"),
        ("['*']", ""),
        ("['io.*', 'com.urunc.*']", ""),
    ],
)
def test_annotations_that_do_not_reach_us(key: str, value: str | None, missing: str) -> None:
    lines = [line for line in full("shim").splitlines() if not line.startswith(key)]
    text = "\n".join(["version = 3", *lines, *([f"{key} = {value}"] if value else [])])
    found = judged(text)
    if missing:
        assert missing in only(found, Outcome.DOUBTFUL).what and f"{key} = [" in found[0].fix
    else:
        assert outcomes(found) == {"handler unikernel-shim": Outcome.GOOD}


def test_files_that_cannot_be_read() -> None:
    broken = cs.settle([Source(MAIN, error="Expected '=' (at line 1)")], V21)
    assert outcomes(cc.judge(broken, SOCKET, COURIER)) == {"config.toml": Outcome.BAD}
    closed = cs.settle([Source(MAIN, error="Permission denied", closed=True)], V21)
    assert outcomes(cc.judge(closed, SOCKET, COURIER)) == {"config.toml": Outcome.UNSEEN}


@pytest.mark.parametrize(
    ("text", "line"),
    [("version = 3", (2, 1)), ("version = 2", (1, 7)), (f"version = 2\n{stanzas.plugin(SOCKET)}", (2, 1))],
)
def test_which_containerd_a_file_is_for(text: str, line: cs.Version) -> None:
    assert cs.guess([source(text)]) == line
    assert cs.guess([Source(MAIN)]) == (2, 1)


HOSTILE = [
    "plugins = 1",
    "plugins = [1]",
    f'plugins."{stanzas.RUNTIME_TABLE}" = "x"',
    f'[plugins."{stanzas.RUNTIME_TABLE}"]\ncontainerd = 7',
    f'[plugins."{stanzas.RUNTIME_TABLE}".containerd]\nruntimes = []',
    f'[plugins."{stanzas.RUNTIME_TABLE}".containerd.runtimes]\nunikernel = "x"',
    runtime("unikernel", "runtime_type = [1]\nsandboxer = {}\npod_annotations = [1, {}]\nruntime_path = 1"),
    "disabled_plugins = 'cri'\nimports = 7\nproxy_plugins = [[]]",
    runtime('"a\\nEOF\\nreboot"', 'runtime_type = "unikernel"'),
    f'[plugins."{stanzas.RUNTIME_TABLE}".containerd]\ndefault_runtime_name = 1',
]


@pytest.mark.parametrize("version", ["version = 3", "version = 'x'", "version = true", "version = -1", ""])
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("line", [V17, V21, V23])
def test_nonsense_is_no_reason_to_stop(text: str, version: str, line: cs.Version) -> None:
    found = judged(f"{version}\n{text}", line)
    assert any(each.outcome is Outcome.BAD for each in found)
    assert not any("\nreboot" in each.fix for each in found)


_VALUES = st.recursive(
    st.sampled_from([None, True, -1, 3, 1 << 70, "", "x\n\0", "sandbox", "unikernel", stanzas.RUNTIME_TYPE]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "version",
                    "plugins",
                    "proxy_plugins",
                    "containerd",
                    "runtimes",
                    "unikernel",
                    "sandboxer",
                    "type",
                    *cs.TABLES,
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["version", "plugins", "proxy_plugins"]), _VALUES), min_size=1, max_size=3)
)
def test_whatever_is_parsed_is_judged(tables: list[dict[str, Any]]) -> None:
    files = [Source(Path(f"/{number}"), table) for number, table in enumerate(tables)]
    for line in (V16, V21, V23):
        assert cc.judge(cs.settle(files, line), SOCKET, COURIER)
