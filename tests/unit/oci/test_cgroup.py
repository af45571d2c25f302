"""Where a pod's cgroup is, by the name that CRI has for it."""

from __future__ import annotations

import pytest

from shim.oci.cgroup import parent_path


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1"),
        ("kubepods/pod1", "/kubepods/pod1"),
        ("/kubepods.slice/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"),
        ("kubepods.slice", "/kubepods.slice"),
        (
            "kubepods-burstable-pod1_2.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
        ),
    ],
)
def test_a_path_or_a_slices_name(parent: str, path: str) -> None:
    assert parent_path(parent) == path
