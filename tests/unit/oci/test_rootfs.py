"""Mount options, long overlays, and what is mounted below a directory: the pure parts."""

from __future__ import annotations

import pytest

from shim.errors import Unsupported
from shim.oci.rootfs import mount_points, parse_options, shorten


def test_flags_and_data_are_told_apart() -> None:
    found = parse_options(["ro", "nosuid", "rbind", "rprivate", "lowerdir=/a:/b", "index=off"])
    assert found.flags == 1 | 2 | 4096 | 16384
    assert found.propagation == (1 << 18) | 16384
    assert found.data == "lowerdir=/a:/b,index=off"


@pytest.mark.parametrize("option", ["uidmap=0:100000:65536", "gidmap=0:100000:65536"])
def test_other_owners_are_refused(option: str) -> None:
    with pytest.raises(Unsupported, match="hostUsers"):
        parse_options(["lowerdir=/l", option])


def test_a_later_option_wins() -> None:
    assert parse_options(["ro", "rw"]).flags == 0


def test_a_long_overlay_is_made_relative() -> None:
    layers = [f"/var/lib/containerd/snapshots/{number:04}/fs" for number in range(150)]
    data = f"upperdir=/u,workdir=/w,lowerdir={':'.join(layers)}"
    base, short = shorten(data)
    assert base == "/var/lib/containerd/snapshots"
    assert len(short) < 4096
    assert "upperdir=/u,workdir=/w,lowerdir=0000/fs:0001/fs" in short


def test_a_short_overlay_is_left_alone() -> None:
    assert shorten("lowerdir=/a/1:/a/2,upperdir=/u") == ("", "lowerdir=/a/1:/a/2,upperdir=/u")


def test_mount_points_below_a_directory() -> None:
    text = (
        "22 1 0:21 / / rw - ext4 /dev/x rw\n"
        "30 22 0:30 / /run/b/rootfs rw - overlay o rw\n"
        "31 30 0:31 / /run/b/rootfs/with\\040space rw - tmpfs t rw\n"
        "32 30 0:32 / /run/b/rootfs-other rw - tmpfs t rw\n"
    )
    assert mount_points(text, "/run/b/rootfs") == ["/run/b/rootfs/with space"]
