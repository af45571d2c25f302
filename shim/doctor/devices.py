"""The device nodes: /dev/kvm by making a machine, /dev/net/tun by making a tap, /dev/vhost-net by opening it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen, words
from shim.doctor.kernel import Kernel, loading
from shim.doctor.programs import Monitors
from shim.doctor.trial import Trial
from shim.monitors.acceleration import KVM, Acceleration

_VHOST = Path("/dev/vhost-net")  # linux/vhost.h
_TUN = Path("/dev/net/tun")  # linux/if_tun.h
# linux/kvm.h
_GET_API_VERSION: Final = 0xAE00
_CREATE_VM: Final = 0xAE01
_API: Final = 12  # the one version that programs may use (Documentation/virt/kvm/api.rst, 4.1)


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each: "" where it worked, else why not. `module` is KVM's for the processor."""

    module: str = "kvm"
    kvm: str = ""
    vhost: str = ""


def observe(kvm: Path = KVM, vhost: Path = _VHOST) -> Devices:
    """Use them; blocks for milliseconds."""
    return Devices(module=_processor_module(), kvm=_use_kvm(kvm), vhost=_open(vhost))


def _use_kvm(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return words(error)
    try:
        version = fcntl.ioctl(descriptor, _GET_API_VERSION)
        if version != _API:
            return f"its interface is version {version}, and programs know {_API}"
        os.close(fcntl.ioctl(descriptor, _CREATE_VM, 0))
    except OSError as error:
        return f"no machine can be made: {words(error)}"
    finally:
        os.close(descriptor)
    return ""


def _open(path: Path) -> str:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return words(error)
    return ""


def judge(devices: Devices, kernel: Kernel, trial: Trial, monitors: Monitors) -> list[Finding]:
    """What they mean to the monitors that there are."""
    return [
        _kvm(devices, kernel, monitors),
        _tun(kernel, trial),
        _vhost(devices, kernel, monitors.acceleration),
    ]


def _finding(path: Path, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.DEVICES, subject=os.fspath(path), outcome=outcome, what=what, why=why, fix=fix)


def _kvm(devices: Devices, kernel: Kernel, monitors: Monitors) -> Finding:
    acceleration, slow = monitors.acceleration, "guests of QEMU run under TCG, many times slower"
    why = f"{slow}; those of {', '.join(monitors.needing_kvm)} cannot run" if monitors.needing_kvm else slow
    if devices.kvm:
        option = "CONFIG_KVM, on a processor (or a machine) that has virtualization"
        fix = loading(kernel, devices.module, option=option)
        if not kernel.root and devices.kvm == os.strerror(errno.EACCES):
            return unseen(Area.DEVICES, os.fspath(KVM), devices.kvm, AS_ROOT)
        return _finding(KVM, Outcome.DOUBTFUL, devices.kvm, why, fix)
    if monitors.accel == "tcg":
        return _finding(KVM, Outcome.GOOD, "a machine was made; QEMU is told to do without (monitors.qemu.accel)")
    if acceleration is None:
        return _finding(KVM, Outcome.GOOD, "a machine was made; no guest was run in it, which takes QEMU")
    if acceleration.accel == "kvm":
        return _finding(KVM, Outcome.GOOD, "a guest ran under it")
    what = "a machine was made, and a guest of QEMU's did not come to its end in it"
    fix = "turn nested virtualization on in the hypervisor that this machine runs on"
    return _finding(KVM, Outcome.DOUBTFUL, what, slow, fix)


def _processor_module() -> str:
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "kvm"
    return "kvm_intel" if intel else "kvm_amd"


def _tun(kernel: Kernel, trial: Trial) -> Finding:
    if trial.namespace:
        fix = "" if kernel.root else AS_ROOT
        reason = f"no network namespace could be made for a tap: {trial.namespace}"
        return unseen(Area.DEVICES, os.fspath(_TUN), reason, fix)
    if not trial.tap:
        return _finding(_TUN, Outcome.GOOD, "a tap was made")
    if trial.tap == os.strerror(errno.ENOENT):
        fix = f"mkdir -p {_TUN.parent} && mknod -m 666 {_TUN} c 10 200"
    else:
        fix = loading(kernel, "tun", option="CONFIG_TUN")
    return _finding(_TUN, Outcome.BAD, f"no tap can be made: {trial.tap}", "a guest's NIC is a tap", fix)


def _vhost(devices: Devices, kernel: Kernel, acceleration: Acceleration | None) -> Finding:
    if not devices.vhost:
        return _finding(_VHOST, Outcome.GOOD, "it can be opened")
    why = "only QEMU under KVM uses it, where it is there: the kernel then moves the packets itself"
    fix = loading(kernel, "vhost_net", option="CONFIG_VHOST_NET")
    under_kvm = acceleration is not None and acceleration.accel == "kvm"
    return _finding(_VHOST, Outcome.DOUBTFUL if under_kvm else Outcome.ABSENT, devices.vhost, why, fix)
