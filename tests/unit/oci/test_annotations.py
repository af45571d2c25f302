"""Annotations: what they may say, and that what they may not say is named."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.oci.annotations import Assignment, BlockWish, Wishes, parse_blocks, parse_memory, parse_nics, wishes


def test_all_of_them() -> None:
    found = wishes(
        {
            "io.unikernel.kernel": "/boot/vmlinuz",
            "io.unikernel.monitor": "qemu",
            "io.unikernel.guest": "linux",
            "io.unikernel.cmdline": "debug",
            "io.unikernel.memory": "1Gi",
            "io.unikernel.initrd": "/boot/initrd",
            "io.unikernel.version": "6.1",
            "io.unikernel.machine": "q35",
            "io.unikernel.root": "squashfs",
            "io.unikernel.block": "/data.img:/data",
            "io.unikernel.network": "required",
            "io.unikernel.nics": "eth0,net1",
            "io.unikernel.dataplane": "mirror",
            "io.kubernetes.cri.sandbox-id": "other people's",
        }
    )
    assert found == Wishes(
        kernel="/boot/vmlinuz",
        monitor="qemu",
        guest="linux",
        cmdline="debug",
        memory=1024,
        initrd="/boot/initrd",
        version="6.1",
        machine="q35",
        root="squashfs",
        blocks=(BlockWish("/data.img", target="/data"),),
        network="required",
        nics=(Assignment("eth0"), Assignment("net1")),
        dataplane="mirror",
    )


def test_none_of_them() -> None:
    assert wishes({}) == Wishes()


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("64", 64),
        ("64Mi", 64),
        ("1Gi", 1024),
        ("64M", 61),
        ("1G", 953),
        ("2048Ki", 2),
        (" 32 ", 32),
        ("16777216", 1 << 24),
    ],
)
def test_memory(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize("text", ["abc", "", "0", "-1", "1.5Gi", "64 Mi", "1Ki", "64mb", "16777217", "٦٤", "1e3"])
def test_no_amount_of_memory(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"io\.unikernel\.memory: .* is not an amount of memory"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "nics"),
    [
        ("eth0", (Assignment("eth0"),)),
        ("net1, eth0.5", (Assignment("net1"), Assignment("eth0.5"))),
        (" service=net1 , management=eth0 ", (Assignment("net1", "service"), Assignment("eth0", "management"))),
    ],
)
def test_nics(text: str, nics: tuple[Assignment, ...]) -> None:
    assert parse_nics(text) == nics


@pytest.mark.parametrize(
    "text",
    [",", "eth0,", "a=", "=eth0", "a=b=c", "a=eth0,net1", "eth0,a=net1", "a_b=eth0", "eth 0", "a/b", "x" * 16, "e:1"],
)
def test_no_list_of_nics(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"io\.unikernel\.nics: .* is not a list of NICs"):
        parse_nics(text)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("/data.img", (BlockWish("/data.img"),)),
        ("data.img:/data", (BlockWish("data.img", target="/data"),)),
        ("/a b.img:/d:ro, /dev/xvda:rw", (BlockWish("/a b.img", target="/d", read_only=True), BlockWish("/dev/xvda"))),
        ("a=/x:ro,b=/y", (BlockWish("/x", "a", read_only=True), BlockWish("/y", "b"))),
        ("/x,/x", (BlockWish("/x"), BlockWish("/x"))),
    ],
)
def test_blocks(text: str, blocks: tuple[BlockWish, ...]) -> None:
    assert parse_blocks(text) == blocks


def test_whose_a_block_device_is() -> None:
    assert [wish.of_pod for wish in parse_blocks("/dev/xvda,/data.img,dev/x,/devices")] == [True, False, False, False]


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "/x,",
        "a=",
        "=/x",
        "a=b=/x",
        "a=/x,/y",
        "/x,a=/y",
        "a_b=/x",
        "/x:data",
        "/x:",
        "/x:/d:wo",
        "/x:ro:/d",
        "/\0",
    ],
)
def test_no_list_of_blocks(text: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"io\.unikernel\.block: .* is not a list of block devices; write \[DEVICE="
    ):
        parse_blocks(text)


@pytest.mark.parametrize("text", ["/dev/../etc/shadow", "/x,/dev/a/../../x", "/dev//sda", "/dev/./sda", "/dev/sda/"])
def test_a_device_that_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"io\.unikernel\.block: .* is no plain path of a device"):
        parse_blocks(text)


def test_two_block_devices_at_one_place() -> None:
    with pytest.raises(InvalidRequest, match=r"io\.unikernel\.block: .* at one place"):
        parse_blocks("/x:/data,/y:/data")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("io.unikernel.kernal", r"did you mean io\.unikernel\.kernel\?"),
        ("io.unikernel.zzz", "known are kernel, monitor"),
        ("io.unikernel.dataplanes", r"did you mean io\.unikernel\.dataplane\?"),
        ("io.unikernel.", "known are"),
    ],
)
def test_unknown_keys(key: str, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint) as caught:
        wishes({key: "x"})
    assert caught.value.subject == key


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("network", "maybe", "choose one of auto, none, required"),
        ("dataplane", "tc", "'tc' is not a choice; choose one of auto, bridge, mirror, macvtap"),
        ("nics", "a=", "'a=' is not a list of NICs; write service=net1,management=eth0 .* eth0,net1"),
        ("memory", "abc", "'abc' is not an amount"),
        ("version", "0.17 beta", "'0.17 beta' is not a version; write one as 0.17.0"),
        ("machine", "Q35,accel=kvm", "is not a machine; write one as microvm or q35"),
        ("root", "zfs", "'zfs' is not a choice; choose one of auto, none, iso9660, .*9p"),
    ],
)
def test_values_that_make_no_sense(key: str, value: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        wishes({f"io.unikernel.{key}": value})
    assert caught.value.subject == f"io.unikernel.{key}"
