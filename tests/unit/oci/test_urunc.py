"""What urunc's annotations and its file say, and that what they may not say is named."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.errors import ImageFault, InvalidRequest
from shim.oci import urunc
from shim.oci.annotations import BlockWish, Wishes, wishes
from tests.unit.oci.urunc_file import annotated, encoded, file

_REDIS = {
    "unikernelType": "rumprun",
    "hypervisor": "hvt",
    "binary": "/unikernel/redis.hvt",
    "cmdline": "redis-server /data/conf/redis.conf",
    "unikernelVersion": "0.6",
}


def read(in_file: Mapping[str, str] | None = None, said: Mapping[str, str] | None = None) -> Wishes:
    return urunc.wishes(
        urunc.from_file(file(in_file)) if in_file else {}, urunc.from_annotations(annotated(said or {}))
    )


@pytest.mark.parametrize("where", ["file", "annotations"])
def test_all_of_them(where: str) -> None:
    found = read(_REDIS) if where == "file" else read(None, _REDIS)
    assert (found.guest, found.monitor, found.kernel, found.version) == (
        "rumprun",
        "hvt",
        "/unikernel/redis.hvt",
        "0.6",
    )
    assert found.default_arguments == ("redis-server", "/data/conf/redis.conf")
    assert (found.root, found.root_target, found.blocks, found.initrd) == ("auto", "/data", (), "")


def test_none_of_them() -> None:
    assert read() == Wishes()


def test_an_annotation_wins_over_the_file() -> None:
    found = read(_REDIS, {"hypervisor": "spt", "cmdline": "redis-cli"})
    assert (found.monitor, found.guest, found.default_arguments) == ("spt", "rumprun", ("redis-cli",))
    assert found.key("monitor") == "com.urunc.unikernel.hypervisor"
    assert found.key("guest") == "urunc.json: com.urunc.unikernel.unikernelType"


def test_our_annotations_win_over_urunc() -> None:
    found = wishes({"io.unikernel.monitor": "spt", "io.unikernel.block": "data=/x"}, read(_REDIS))
    assert (found.monitor, found.kernel, found.blocks) == ("spt", "/unikernel/redis.hvt", (BlockWish("/x", "data"),))
    assert found.key("monitor") == "io.unikernel.monitor"


@pytest.mark.parametrize(
    ("more", "root", "target", "blocks"),
    [
        ({"block": "/disk"}, "none", "/data", (BlockWish("/disk", target="/data"),)),
        ({"block": "/disk", "blkMntPoint": "/conf"}, "none", "/conf", (BlockWish("/disk", target="/conf"),)),
        ({"block": "/disk", "unikernelType": "mirage"}, "none", "/", (BlockWish("/disk"),)),
        ({"block": "/disk", "unikernelType": "mirage", "blkMntPoint": "/"}, "none", "/", (BlockWish("/disk"),)),
        ({"block": "/disk", "unikernelType": "linux"}, "none", "/", (BlockWish("/disk", target="/"),)),
        ({"useDMBlock": "false"}, "none", "/data", ()),
        ({"useDMBlock": "true"}, "auto", "/data", ()),
        ({"useDMBlock": "maybe"}, "auto", "/data", ()),
        ({"mountRootfs": "false", "useDMBlock": "true"}, "none", "/data", ()),
        ({"initrd": "/initrd"}, "none", "/data", ()),
        ({"initrd": "/initrd", "useDMBlock": "true"}, "auto", "/data", ()),
    ],
)
def test_storage(more: dict[str, str], root: str, target: str, blocks: tuple[BlockWish, ...]) -> None:
    found = read({**_REDIS, **more})
    assert (found.root, found.root_target, found.blocks) == (root, target, blocks)


def test_names_in_any_case_and_line_breaks_in_values() -> None:
    said = {"COM.urunc.Unikernel.BINARY": encoded("/unikernel/kernel")[:8] + "\n" + encoded("/unikernel/kernel")[8:]}
    assert urunc.from_file(json.dumps(said).encode()) == {"binary": "/unikernel/kernel"}


def test_what_urunc_passes_over() -> None:
    said = {
        **annotated({"binary": "/k", "cmdline": ""}),
        "com.urunc.unikernel.later": 1,
        "com.urunc.unikernel.initrd": None,
    }
    assert urunc.from_file(json.dumps(said).encode()) == {"binary": "/k"}
    assert urunc.from_annotations({"com.urunc.unikernel.later": "x", "other": "y"}) == {}


def test_a_version_that_cannot_be_read_is_the_newest() -> None:
    assert read({**_REDIS, "unikernelVersion": "the newest"}).version == ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe{}", "it is not JSON"),
        (b"[" * 40000, "it is not JSON"),
        (b"[]", "not one JSON object"),
        (b"null", "not one JSON object"),
        (b"{}", r"names no kernel in com\.urunc\.unikernel\.binary"),
        (b'{"com.urunc.unikernel.binary": 1}', r"the value of com\.urunc\.unikernel\.binary is no string"),
        (b'{"com.urunc.unikernel.binary": "/unikernel/kernel"}', "'/unikernel/kernel' is not the base64 of a text"),
        (b'{"com.urunc.unikernel.binary": "L3g"}', "'L3g' is not the base64 of a text"),
        (b'{"com.urunc.unikernel.binary": "\\u0664"}', "is not the base64 of a text"),
        (b'{"com.urunc.unikernel.binary": "/w=="}', "is not the base64 of a text"),
        (b'{"com.urunc.unikernel.binary": "L2sAeA=="}', "the value holds a NUL byte"),
    ],
    ids=str,
)
def test_a_file_that_makes_no_sense(data: bytes, why: str) -> None:
    with pytest.raises(ImageFault, match=why) as caught:
        urunc.from_file(data)
    assert caught.value.subject.startswith("urunc.json")


def test_an_annotation_that_is_not_base64() -> None:
    with pytest.raises(
        InvalidRequest, match=r"hypervisor: 'hvt' is not the base64 of a text; urunc's values are base64"
    ):
        urunc.from_annotations({"com.urunc.unikernel.hypervisor": "hvt"})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"unikernelType": "mewz"}, r"unikernelType: 'mewz' does not run here; what works is solo5, .*, nanos"),
        ({"hypervisor": "hedge"}, r"hypervisor: 'hedge' does not run here; what works is spt, .*, cloud-hypervisor"),
    ],
)
def test_what_does_not_run_here(values: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        read(_REDIS, values)
    with pytest.raises(ImageFault, match=rf"urunc\.json: com\.urunc\.unikernel\.{why}"):
        read({**_REDIS, **values})


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from([f"com.urunc.unikernel.{name}" for name in (*_REDIS, "block", "useDMBlock", "initrd")]),
            st.one_of(st.none(), st.integers(), st.text(max_size=20), st.binary(max_size=20).map(base64.b64encode)),
        ).map(lambda said: json.dumps(said, default=bytes.decode).encode()),
    )
)
def test_only_errors_of_ours_escape(data: bytes) -> None:
    try:
        found = urunc.wishes(urunc.from_file(data), {})
    except ImageFault as error:
        assert error.subject.startswith("urunc.json")
    else:
        assert found.kernel
        assert "\0" not in found.kernel


@given(
    values=st.dictionaries(
        st.sampled_from(["binary", "cmdline", "initrd", "block", "blkMntPoint"]),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
    )
)
def test_what_goes_in_comes_out(values: dict[str, str]) -> None:
    values["binary"] = values.get("binary", "/k")
    assert urunc.from_file(file(values)) == values
    assert urunc.from_annotations(annotated(values)) == values
