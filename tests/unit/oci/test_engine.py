"""What an engine says when it refuses."""

from __future__ import annotations

from shim.oci.engine import last_error


def test_the_last_error_of_a_json_log() -> None:
    log = (
        b'{"level":"warning","msg":"odd"}\n{"level":"error","msg":"first"}\n'
        b'{"level":"error","msg":" container_linux.go: no such file "}\n{"level":"debug","msg":"x"}\n'
    )
    assert last_error(log) == "container_linux.go: no such file"


def test_plain_words_are_kept() -> None:
    assert last_error(b"crun: cgroups in hybrid mode not supported\n") == "crun: cgroups in hybrid mode not supported"
    assert last_error(b"") == ""
