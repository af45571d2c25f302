"""Write the files of the integration tests' images below a directory: `python3 -m contrib.kind.files OUT`.

Docker makes images of them (guest.Dockerfile), so what a cluster runs is what the tests ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration import images
from tests.integration.images import Image, Symlink


def write(image: Image, directory: Path) -> None:
    """Every file of the image, executable, as its archive has it."""
    for name, content in image.files.items():
        path = directory / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Symlink):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)
            path.chmod(0o755)


if __name__ == "__main__":
    write(images.linux(), Path(sys.argv[1]) / "guest")
    write(images.busybox(), Path(sys.argv[1]) / "client")
