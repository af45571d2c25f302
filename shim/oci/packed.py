"""What an image says of itself in a file of its own: `/unikernel.json`.

containerd shows a runtime none of an image's annotations and labels, only the pod's, so an image that is to run with no
word from the pod carries its wishes inside:

    {"annotations": {"io.unikernel.kernel": "/unikernel/kernel", "io.unikernel.memory": "64Mi"}}

The names and values are those of `shim/oci/annotations.py`. A pod's annotations win over them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim.errors import ImageFault
from shim.oci.annotations import PREFIX
from shim.storage.inside import find

PATH = "/unikernel.json"
# More than a guest's longest command line and every other annotation; what is longer is no description.
_MOST = 1 << 16


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    annotations: dict[str, str]


def read(root: Path) -> dict[str, str]:
    """The annotations in the description of the image at `root`, none where there is no such file; blocks.

    Raises ImageFault where it is there and leads out of the image, is too long, or says something else.
    """
    if not os.path.lexists(root / PATH.lstrip("/")):
        return {}
    try:
        with find(root, PATH, "description").open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise ImageFault(f"the image's description cannot be read: {error.strerror}", subject=PATH) from error
    if len(data) > _MOST:
        raise ImageFault(f"the image's description is longer than {_MOST} bytes", subject=PATH)
    try:
        annotations = msgspec.json.decode(data, type=_Description).annotations
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImageFault(
            f"the image's description is not as it must be: {error}",
            subject=PATH,
            remedy=f'write {{"annotations": {{"{PREFIX}kernel": "/path"}}}}',
        ) from error
    for key in annotations:
        if not key.startswith(PREFIX):
            raise ImageFault(f"the image's description holds {key!r}, which is not under {PREFIX}", subject=PATH)
    return annotations


def encode(annotations: Mapping[str, str]) -> bytes:
    """The description of an image with these annotations; the same bytes for the same annotations."""
    data = msgspec.json.encode(_Description(dict(sorted(annotations.items()))))
    return msgspec.json.format(data, indent=2) + b"\n"
