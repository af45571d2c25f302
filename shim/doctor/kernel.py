"""The kernel: its version, what it lets us do, its cgroups, and what pods' networks are made of."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from shim import stats
from shim.config import Dataplane
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen
from shim.doctor.trial import Trial

#: The first that has every call we make (docs/installing.md).
_OLDEST = (5, 8)
# linux/capability.h
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
_RESOURCE: Final = 24  # CAP_SYS_RESOURCE
_MODULES = Path("/lib/modules")


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is whether this process is root's; `release` is uname(2)'s; `capabilities` are this process's effective
    ones, a bit each; `v1` the controllers that are mounted as cgroup v1, `v2` those that v2 has, None where it is not
    mounted; `modules` those that could be loaded."""

    root: bool
    release: str
    capabilities: int
    v1: tuple[str, ...] = ()
    v2: tuple[str, ...] | None = None
    modules: frozenset[str] = frozenset()


def observe(proc: Path = Path("/proc"), modules: Path = _MODULES) -> Kernel:
    """Read what the kernel says of itself; blocks. Raises OSError where /proc is not what it should be."""
    release = os.uname().release
    mounts = stats.parse_mounts((proc / "self/mountinfo").read_text())
    status = re.search(r"^CapEff:\s*([0-9a-f]+)$", (proc / "self/status").read_text(), re.MULTILINE)
    controllers = {line.split()[0] for line in (proc / "cgroups").read_text().splitlines() if not line.startswith("#")}
    return Kernel(
        root=os.geteuid() == 0,
        release=release,
        capabilities=int(status[1], 16) if status else 0,
        v1=tuple(sorted(controllers.intersection(mounts.v1))),
        v2=_controllers(mounts.v2[0].point) if mounts.v2 else None,
        modules=_loadable(modules / release / "modules.dep"),
    )


def _controllers(point: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted((point / "cgroup.controllers").read_text().split()))
    except OSError:
        return ()


def _loadable(dependencies: Path) -> frozenset[str]:
    """The modules of modules.dep(5): a path and a colon begin each line."""
    try:
        lines = dependencies.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    paths = (line.partition(":")[0].rpartition("/")[2] for line in lines)
    return frozenset(path.partition(".")[0].replace("-", "_") for path in paths)


def loading(kernel: Kernel, *modules: str, option: str) -> str:
    """The command that gives the kernel `modules`; where it has none to load, the `option` it must be built with."""
    if kernel.modules.issuperset(modules):
        return f"modprobe --all {' '.join(modules)}"
    return f"run a kernel with {option}"


def judge(kernel: Kernel, trial: Trial, dataplane: Dataplane) -> list[Finding]:
    """What they mean for a node whose pods are plumbed by `dataplane`."""
    return [_release(kernel), *_rights(kernel), _cgroups(kernel), *network(kernel, trial, dataplane)]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.KERNEL, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


def _release(kernel: Kernel) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", kernel.release)
    what = f"Linux {kernel.release}"
    if found and (int(found[1]), int(found[2])) >= _OLDEST:
        return _finding("version", Outcome.GOOD, what)
    oldest = ".".join(map(str, _OLDEST))
    why = f"the daemon makes calls that came with {oldest}"
    return _finding("version", Outcome.BAD, what, why, "run a newer kernel")


def _rights(kernel: Kernel) -> list[Finding]:
    if not kernel.root:
        return [unseen(Area.KERNEL, "capabilities", "the daemon's are root's, and this is not root", AS_ROOT)]
    missing = [name for name, bit in _CAPABILITIES.items() if not kernel.capabilities >> bit & 1]
    if missing:
        why = "the daemon makes devices and programs in pods' network namespaces"
        fix = "run the service, and this, with these capabilities: outside a container, or in a privileged one"
        return [_finding("capabilities", Outcome.BAD, f"root here has no {', '.join(missing)}", why, fix)]
    if not kernel.capabilities >> _RESOURCE & 1:
        why = "containerd lowers the OOM score of what the kubelet holds dear, and a pod fails where that is refused"
        fix = "set restrict_oom_score_adj = true in containerd's CRI configuration"
        return [_finding("capabilities", Outcome.DOUBTFUL, "root here has no CAP_SYS_RESOURCE", why, fix)]
    return [_finding("capabilities", Outcome.GOOD, f"all there: {', '.join(_CAPABILITIES)}")]


def _cgroups(kernel: Kernel) -> Finding:
    if kernel.v1 and kernel.v2 is not None:
        return _finding("cgroups", Outcome.GOOD, f"hybrid: v1 has {_list(kernel.v1)}; v2 has {_list(kernel.v2)}")
    if kernel.v1:
        return _finding("cgroups", Outcome.GOOD, f"v1: {_list(kernel.v1)}")
    if kernel.v2:
        return _finding("cgroups", Outcome.GOOD, f"v2: {_list(kernel.v2)}")
    why = "limits of memory, processors and processes are cgroups'; without them no engine starts a container"
    fix = "mount -t cgroup2 none /sys/fs/cgroup"
    return _finding("cgroups", Outcome.BAD, "none are mounted, or they have no controller", why, fix)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def network(kernel: Kernel, trial: Trial, dataplane: Dataplane) -> list[Finding]:
    """What pods' networks are made of, by what became of the trial."""
    if trial.namespace:
        reason = f"no network namespace could be made to try it in: {trial.namespace}"
        fix = "" if kernel.root else AS_ROOT
        return [unseen(Area.KERNEL, subject, reason, fix) for subject in ("bridge", "traffic control", "macvtap")]
    return [
        _bridge(kernel, trial, dataplane),
        _traffic_control(kernel, trial, dataplane),
        _macvtap(kernel, trial, dataplane),
    ]


def _bridge(kernel: Kernel, trial: Trial, dataplane: Dataplane) -> Finding:
    if not trial.bridge:
        return _finding("bridge", Outcome.GOOD, "one was made")
    needed = dataplane == "bridge"
    why = "this is the node's dataplane" if needed else "pods that ask for the dataplane bridge cannot start"
    outcome = Outcome.BAD if needed else Outcome.DOUBTFUL
    fix = loading(kernel, "bridge", option="CONFIG_BRIDGE")
    return _finding("bridge", outcome, f"none can be made: {trial.bridge}", why, fix)


def _traffic_control(kernel: Kernel, trial: Trial, dataplane: Dataplane) -> Finding:
    if not (trial.programs or trial.filters):
        return _finding("traffic control", Outcome.GOOD, "our BPF programs were taken, and one was attached")
    if dataplane == "bridge":
        outcome, why = Outcome.DOUBTFUL, "pods whose network is not plain (a /32, a small MTU) cannot start"
    else:
        outcome, why = Outcome.BAD, f"a guest's frames are redirected by BPF programs (dataplane {dataplane})"
    if trial.filters:
        fix = loading(
            kernel, "sch_ingress", "cls_bpf", option="CONFIG_BPF_SYSCALL, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF"
        )
        return _finding("traffic control", outcome, f"no BPF program can be attached: {trial.filters}", why, fix)
    fix = "run a newer kernel, or set network.dataplane to bridge where pods' networks are plain"
    return _finding("traffic control", outcome, f"our BPF programs are refused: {trial.programs}", why, fix)


def _macvtap(kernel: Kernel, trial: Trial, dataplane: Dataplane) -> Finding:
    if not trial.macvtap:
        return _finding("macvtap", Outcome.GOOD, "one was made, and its device opened")
    needed = dataplane == "macvtap"
    outcome = Outcome.BAD if needed else Outcome.ABSENT
    why = "this is the node's dataplane" if needed else "only pods that ask for the dataplane macvtap need it"
    fix = loading(kernel, "macvtap", option="CONFIG_MACVTAP")
    return _finding("macvtap", outcome, f"none can be made: {trial.macvtap}", why, fix)
