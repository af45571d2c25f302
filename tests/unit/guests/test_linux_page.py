"""docs/guests/linux.md says how an init of one's own mounts its volumes: its lines do that."""

from __future__ import annotations

import subprocess
from pathlib import Path

from shim.guests.base import GuestSpec, Volume
from shim.guests.registry import guests

_PAGE = Path(__file__).parents[3] / "docs" / "guests" / "linux.md"
_VOLUMES = (
    Volume(target="/data", format="ext4", disk=0, read_only=False),
    Volume(target="/etc/web", format="9p", device="web"),
)


def test_its_lines_mount_the_volumes(tmp_path: Path) -> None:
    lines = [line for line in _PAGE.read_text().splitlines() if line.startswith("    ")]
    script = "\n".join(lines[lines.index("    for word in $(cat /proc/cmdline); do") :])
    cmdline = tmp_path / "cmdline"
    cmdline.write_text(" ".join(guests()["linux"].words(GuestSpec(volumes=_VOLUMES, arguments=("a:b",)))))
    stubs = 'mkdir() { echo "mkdir $*"; }; mount() { echo "mount $*"; }\n'
    program = stubs + script.replace("/proc/cmdline", str(cmdline))
    done = subprocess.run(["/bin/sh", "-eu", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "mkdir -p /data",
        "mount -t ext4 -o rw /dev/vda /data",
        "mkdir -p /etc/web",
        "mount -t 9p -o ro,trans=virtio,version=9p2000.L web /etc/web",
    ]
