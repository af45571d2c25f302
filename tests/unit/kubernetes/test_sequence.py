"""A node's files after install, remove, upgrade, and after a kill at every moment of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from contrib.kubernetes.installer import sequence
from contrib.kubernetes.installer.__main__ import main
from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.record import FILE, Record
from shim.errors import NodeFault, WrongState
from tests.unit.kubernetes.a_node import IMPORTING, MAIN, Fake, Killed, made, tree

NODES = {
    "old format": (MAIN, "2.1.9"),
    "imports": (IMPORTING, "2.1.9"),
    "newest format": ("version = 3\n", "2.1.9"),
    "no file": (None, "2.1.9"),
    "of 2.3": ('version = 4\nimports = ["conf.d/*.toml"]\n', "2.3.0"),
    "of 2.3, alone": ("version = 4\n", "2.3.0"),
    "1.7": (MAIN, "1.7.24"),
    "1.6": (MAIN, "1.6.20"),
}
SOCKET = "[Socket]\nListenStream=/run/unikernel-shim/shim.sock\n[Install]\nWantedBy=sockets.target\n"


@pytest.fixture(autouse=True)
def _no_waiting_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power; a kill alone loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=NODES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Fake:
    return Fake(tmp_path / "node", *NODES[request.param])


def test_a_node_is_installed_and_is_as_it_was(node: Fake, tmp_path: Path) -> None:
    installation = made(tmp_path, **{"unikernel-shim.socket": SOCKET})
    said, _ = node.install(installation)
    assert said == ["release 1 is on this node"]
    there = tree(node.root)
    assert there["opt/unikernel-shim/current"][3] == "versions/1"
    assert there["usr/local/bin/unikernel-shim"][3] == "/opt/unikernel-shim/current/venv/bin/unikernel-shim"
    assert there["etc/systemd/system/multi-user.target.wants/unikernel-shim.service"][3] is not None
    assert there["etc/systemd/system/sockets.target.wants/unikernel-shim.socket"][3] is not None
    unit = (node.root / "etc/systemd/system/unikernel-shim.service").read_text()
    assert "ExecStart=/opt/unikernel-shim/current/venv/bin/unikernel-shim serve" in unit
    assert "@" not in unit
    assert node.programs.asked == [
        "daemon-reload",
        "start unikernel-shim.socket",
        "restart unikernel-shim.service",
        "restart containerd.service",
    ]
    sequence.status(Node(node.root, node.programs), installation, Record(Node(node.root, node.programs)))
    node.programs.asked.clear()
    said, _ = node.remove()
    assert said == ["the runtime is off this node"]
    assert tree(node.root) == node.before
    assert node.programs.asked == [
        "restart containerd.service",
        "stop unikernel-shim.socket",
        "stop unikernel-shim.service",
        "daemon-reload",
    ]


def test_a_second_run_does_nothing(node: Fake, tmp_path: Path) -> None:
    installation = made(tmp_path)
    node.install(installation)
    there = tree(node.root)
    node.programs.asked.clear()
    _, moments = node.install(installation)
    assert moments == 0
    assert tree(node.root) == there
    assert node.programs.asked == []


def test_what_the_node_said_stays_in_force(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.install(made(tmp_path))
    text = node.main.read_text()
    assert text.startswith(MAIN)
    assert "runtimes.unikernel]" in text and "io.containerd.cri.v1" not in text
    assert node.main.stat().st_mode & 0o777 == 0o640


def test_an_imported_directory_gets_a_file(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node", IMPORTING)
    node.install(made(tmp_path))
    assert node.main.read_text() == IMPORTING
    assert "version = 3" in (node.root / "etc/containerd/conf.d/unikernel-shim.toml").read_text()


def test_what_is_replaced_is_on_the_disk_first_and_never_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Fake(tmp_path / "node")
    node.main.chmod(0o600)
    synced: list[int] = []
    replaced: list[tuple[str, int, bool]] = []
    fsync, replace, chown = os.fsync, Path.replace, os.chown

    def syncs(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def owned(path: Path, user: int, group: int) -> None:
        assert path.stat().st_mode & 0o777 == 0o600, path
        chown(path, user, group)

    def replaces(draft: Path, target: Path) -> Path:
        if not draft.is_symlink():
            replaced.append((target.name, draft.stat().st_mode & 0o777, draft.stat().st_ino in synced))
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "chown", owned)
    monkeypatch.setattr(Path, "replace", replaces)
    node.install(made(tmp_path))
    assert all(is_synced for _, _, is_synced in replaced)
    assert ("config.toml", 0o600, True) in replaced and ("unikernel-shim.service", 0o644, True) in replaced


def test_a_record_that_is_none_is_said_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / FILE.lstrip("/")).write_text("{")
    for words in (["install"], ["remove"], ["status"], ["status", "--absent"]):
        done = CliRunner().invoke(main, ["--root", str(tmp_path), *words])
        assert done.exit_code == 1 and "is no record" in done.output, words
        assert isinstance(done.exception, SystemExit), words


@pytest.mark.parametrize("case", ["old format", "imports"])
def test_a_killed_install_is_finished_or_undone(case: str, tmp_path: Path) -> None:
    installation = made(tmp_path)
    whole = Fake(tmp_path / "whole", *NODES[case])
    _, moments = whole.install(installation)
    # Each of the two nodes has every second moment finished and the others undone, the other node the reverse.
    for kill in range(moments):
        node = Fake(tmp_path / f"node{kill}", *NODES[case])
        with pytest.raises(Killed):
            node.install(installation, kill=kill)
        if kill % 2 == (case == "imports"):
            node.install(installation)
            assert _contents(node) == _contents(whole), kill
            # Whatever was begun before the kill was also made to count.
            acts = {"daemon-reload", "restart unikernel-shim.service", "restart containerd.service"}
            assert acts <= set(node.programs.asked), kill
        node.remove()
        assert tree(node.root) == node.before, kill


@pytest.mark.parametrize("case", ["old format", "imports"])
def test_a_killed_remove_is_finished(case: str, tmp_path: Path) -> None:
    installation = made(tmp_path)
    trial = Fake(tmp_path / "trial", *NODES[case])
    trial.install(installation)
    _, moments = trial.remove()
    for kill in range(moments):
        node = Fake(tmp_path / f"node{kill}", *NODES[case])
        node.install(installation)
        with pytest.raises(Killed):
            node.remove(kill=kill)
        node.remove()
        assert tree(node.root) == node.before, kill


def test_a_killed_upgrade_is_finished_or_undone(tmp_path: Path) -> None:
    first = made(tmp_path / "first", "1", **{"gone.service": "[Install]\nWantedBy=multi-user.target\n"})
    second = made(tmp_path / "second", "2")
    trial = Fake(tmp_path / "trial")
    trial.install(first)
    trial.programs.asked.clear()
    _, moments = trial.install(second)
    assert not (trial.root / "opt/unikernel-shim/versions/1").exists()
    assert not (trial.root / "etc/systemd/system/gone.service").exists()
    assert "restart unikernel-shim.service" in trial.programs.asked
    assert "restart containerd.service" not in trial.programs.asked
    assert (trial.root / "etc/unikernel-shim/config.toml").read_text() == "# of 2\n"
    for kill in range(moments):
        node = Fake(tmp_path / f"node{kill}")
        node.install(first)
        with pytest.raises(Killed):
            node.install(second, kill=kill)
        if kill % 2:
            node.install(second)
            assert _contents(node) == _contents(trial), kill
        node.remove()
        assert tree(node.root) == node.before, kill


def test_what_people_changed_stays(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.install(made(tmp_path))
    settings = node.root / "etc/unikernel-shim/config.toml"
    settings.write_text("grouping = 'pod'\n")
    node.main.write_text(node.main.read_text() + "\n[debug]\nlevel = 'debug'\n")
    node.install(made(tmp_path / "next", "2"))
    assert settings.read_text() == "grouping = 'pod'\n"
    said, _ = node.remove()
    assert "/etc/unikernel-shim/config.toml stays: somebody has changed it" in said
    assert node.main.read_text() == MAIN + "\n[debug]\nlevel = 'debug'\n"
    assert not (node.root / FILE.lstrip("/")).exists()


def test_settings_that_are_there_are_not_touched(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    (node.root / "etc/unikernel-shim").mkdir()
    (node.root / "etc/unikernel-shim/config.toml").write_text("grouping = 'pod'\n")
    before = tree(node.root)
    node.install(made(tmp_path))
    node.remove()
    assert tree(node.root) == before


def test_what_the_service_made_goes_with_it(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.install(made(tmp_path))
    (node.root / "var/lib/unikernel-shim/images").mkdir(parents=True)
    (node.root / "run/unikernel-shim/journal/pods").mkdir(parents=True)
    node.remove()
    assert tree(node.root) == node.before


def test_pods_keep_the_runtime_on_a_node(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.install(made(tmp_path))
    record = node.root / "run/unikernel-shim/journal/pods/k8s.io@0123.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    there = tree(node.root)
    with pytest.raises(WrongState, match="drain"):
        node.remove()
    assert tree(node.root) == there
    node.remove(force=True)
    assert tree(node.root) == node.before


def test_a_tree_in_use_stays_until_it_is_not(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.install(made(tmp_path / "first", "1"))
    old = node.root / "opt/unikernel-shim/versions/1"
    (node.root / "proc/77").mkdir(parents=True)
    (node.root / "proc/77/exe").symlink_to(old / "python/bin/python3.11")
    second = made(tmp_path / "second", "2")
    said, _ = node.install(second)
    assert said[0].startswith("/opt/unikernel-shim/versions/1 stays")
    assert old.exists()
    (node.root / "proc/77/exe").unlink()
    node.install(second)
    assert not old.exists()


def test_a_configuration_that_containerd_refuses_is_put_back(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    node.programs.refuses = "io.containerd.unikernel.v2"
    with pytest.raises(NodeFault, match="will not have it"):
        node.install(made(tmp_path))
    assert tree(node.root)["etc/containerd/config.toml"] == node.before["etc/containerd/config.toml"]
    assert node.programs.asked == []
    node.programs.refuses = ""
    node.remove()
    assert tree(node.root) == node.before


@pytest.mark.parametrize("case", ["old format", "imports", "no file"])
def test_an_upgrade_that_containerd_refuses_leaves_the_former_registration(case: str, tmp_path: Path) -> None:
    node = Fake(tmp_path / "node", *NODES[case])
    node.install(made(tmp_path))
    there = {name: entry[3] for name, entry in tree(node.root).items() if name.startswith("etc/containerd/")}
    second = made(tmp_path / "next", "2")
    stanza = second.source / "share/containerd/2.x-sandbox-plugin.toml"
    stanza.write_text(stanza.read_text() + 'snapshotter = "refused"\n')
    node.programs.refuses = "refused"
    node.programs.asked.clear()
    with pytest.raises(NodeFault, match="will not have it"):
        node.install(second)
    assert {name: entry[3] for name, entry in tree(node.root).items() if name.startswith("etc/containerd/")} == there
    assert node.programs.asked == []
    node.remove()
    assert tree(node.root) == node.before


@pytest.mark.parametrize(
    ("main", "version", "words"),
    [
        (MAIN, "1.5.9", "1.5"),
        (MAIN.replace("version = 2", ""), "1.7.24", "version 1"),
        ("version = 2\n", "1.7.24", "lose runc"),
        (None, "1.7.24", "lose runc"),
        ("", "2.1.9", "version 1"),
        (MAIN.replace("version = 2", "version = 3"), "1.7.24", "version 3"),
        ("version =\n", "2.1.9", "no TOML"),
        (
            'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.unikernel]\nruntime_type = "x"\n',
            "2.1.9",
            "already",
        ),
        ("version = 2\n", "dev", "version"),
    ],
)
def test_what_cannot_be_registered_is_refused_before_anything(
    main: str | None, version: str, words: str, tmp_path: Path
) -> None:
    node = Fake(tmp_path / "node", main, version)
    with pytest.raises(NodeFault, match=words):
        node.install(made(tmp_path))
    assert tree(node.root) == node.before


def test_another_installation_is_not_written_over(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    (node.root / "usr/local/bin/unikernel-shim").symlink_to("/opt/unikernel-shim/venv/bin/unikernel-shim")
    before = tree(node.root)
    with pytest.raises(NodeFault, match="make uninstall"):
        node.install(made(tmp_path))
    assert tree(node.root) == before


def test_links_of_the_node_are_followed_in_its_root(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    real = node.root / "etc/containerd/real.toml"
    node.main.rename(real)
    node.main.symlink_to("/etc/containerd/real.toml")
    (node.root / "usr/local/bin").rmdir()
    (node.root / "usr/local/bin").symlink_to("../../bin")
    (node.root / "bin").mkdir()
    before = tree(node.root)
    node.install(made(tmp_path))
    assert "unikernel" in real.read_text()
    assert (node.root / "bin/unikernel-shim").is_symlink()
    node.remove()
    assert tree(node.root) == before


def test_links_in_circles_are_refused(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node", None)
    node.main.symlink_to("config.toml")
    with pytest.raises(NodeFault, match="circles"):
        node.install(made(tmp_path))


def test_without_systemd_nothing_is_started(tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    (node.root / "run/systemd/system").rmdir()
    node.install(made(tmp_path))
    assert node.programs.asked == []
    assert os.path.lexists(node.root / "etc/systemd/system/multi-user.target.wants/unikernel-shim.service")


@pytest.mark.parametrize("content", [b"{", b'{"steps": [{"type": "Strange"}]}'])
def test_a_record_of_somebody_elses_is_refused(content: bytes, tmp_path: Path) -> None:
    node = Fake(tmp_path / "node")
    (node.root / FILE.lstrip("/")).write_bytes(content)
    with pytest.raises(NodeFault, match="no record"):
        node.install(made(tmp_path))


@pytest.mark.parametrize("lost", ["usr/local/bin/unikernel-shim", "etc/systemd/system/unikernel-shim.service"])
def test_status_tells_what_is_not_there(lost: str, tmp_path: Path) -> None:
    node, installation = Fake(tmp_path / "node"), made(tmp_path)
    place = Node(node.root, node.programs)
    with pytest.raises(NodeFault, match="not complete"):
        sequence.status(place, installation, Record(place))
    node.install(installation)
    (node.root / lost).unlink()
    with pytest.raises(NodeFault, match="install it again"):
        sequence.status(place, installation, Record(place))
    node.install(installation)
    sequence.status(place, installation, Record(place))


def _contents(node: Fake) -> dict[str, object]:
    """Of every file, and of the record what it comes to."""
    contents: dict[str, object] = {name: each[3] for name, each in tree(node.root).items()}
    contents[FILE.lstrip("/")] = sorted(step.path for step in Record(Node(node.root)).steps)
    return contents
