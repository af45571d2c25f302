"""A Linux guest's root file system and volumes, as words of the kernel's command line, not yet quoted.

The kernel mounts the root itself: `root=`, `rootfstype=`, `rootflags=`, `ro` or `rw`
(admin-guide/kernel-parameters.rst); one that is no block device since Linux 5.15 (init/do_mounts.c,
mount_nodev_root()). It mounts nothing else. Volumes are said in systemd's grammar, `systemd.mount-extra=
WHAT:WHERE:TYPE:OPTIONS` (systemd-fstab-generator(8), from systemd 254), one word each, always with all four fields and
no escapes, so that any other init can split the word at its colons. The dot in its name makes the kernel take it for a
module's parameter and leave it alone.

Disks are /dev/vda, /dev/vdb, … in the machine's order (drivers/block/virtio_blk.c, virtblk_name_format()). Options of
9p: filesystems/9p.rst.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from shim.errors import InvalidRequest
from shim.guests.base import Volume
from shim.guests.mounting import mount_point

#: What can be mounted: the best first.
FORMATS: tuple[str, ...] = ("squashfs", "erofs", "ext4", "iso9660", "9p", "virtiofs")
#: A root that the kernel unpacks from its initrd, and mounts nothing over.
INITRD = "cpio"
# File systems of ext4's driver, which an image may bring.
_KNOWN = {*FORMATS, "ext2", "ext3"}
_OPTIONS = {"9p": "trans=virtio,version=9p2000.L"}


def root_of(volumes: Sequence[Volume]) -> Volume | None:
    """The volume that is the root, None where there is none. Raises InvalidRequest for two of them."""
    found = [volume for volume in volumes if volume.target == "/"]
    if len(found) > 1:
        raise InvalidRequest("a guest has one root file system, and two volumes are it", subject="/")
    return found[0] if found else None


def root_words(root: Volume) -> list[str]:
    """What the kernel is told of its root. Raises InvalidRequest for one that it cannot mount."""
    if root.format == INITRD:
        return []
    found = [f"root={_source(root)}", "ro" if root.read_only else "rw"]
    if root.format:
        found.append(f"rootfstype={root.format}")
    if options := _OPTIONS.get(root.format):
        found.append(f"rootflags={options}")
    return found


def mount_words(volumes: Sequence[Volume]) -> list[str]:
    """What user space is told of the others; a bare device is not spoken of.

    Raises InvalidRequest for one that cannot be mounted, or a path that the grammar cannot express.
    """
    found = []
    for volume in volumes:
        if volume.target in ("", "/"):
            continue
        where = mount_point(volume, "Linux", ":\\")
        options = ["ro" if volume.read_only else "rw", *filter(None, [_OPTIONS.get(volume.format)])]
        found.append(f"systemd.mount-extra={_source(volume)}:{where}:{volume.format or 'auto'}:{','.join(options)}")
    return found


def _source(volume: Volume) -> str:
    """The device, or the tag of a shared directory. Raises InvalidRequest."""
    if volume.format and volume.format not in _KNOWN:
        raise InvalidRequest(
            f"a Linux guest cannot mount {volume.format}",
            subject=volume.target,
            remedy=f"use {', '.join(FORMATS)}",
        )
    if volume.disk is None:
        return volume.device
    return f"/dev/vd{_letters(volume.disk)}"


def _letters(number: int) -> str:
    """a, b, …, z, aa, ab, …"""
    letters = string.ascii_lowercase
    head, last = divmod(number, len(letters))
    return (_letters(head - 1) if head else "") + letters[last]
