"""An image of each kind that is recognised, and what its guest is to be told in a pod.

Linux's kernel is Debian's. No registry has one of another family, so those here are ours: a real monitor starts a
kernel of some bytes (`small_kernel.py`) that has the family's marks and is entered as the family's own are, and it
prints the command line that it was given. Solo5's families have no monitor here either: for them the tender's double
is the monitor and the guest.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.integration import guest, small_kernel
from tests.integration.cri import Pod
from tests.integration.images import INITRD_PATH, KERNEL_PATH, Image, Symlink
from tests.unit.oci import elf

#: What the pods' network has; the name server and the search domain are the pod's own.
GATEWAY, SERVER, DOMAIN = "10.88.0.1", "10.96.0.10", "cluster.test"

# As QEMU enters a family's kernels.
UNIKRAFT = elf.unikraft(multiboot=True, code=small_kernel.code("multiboot"))
OSV = elf.osv(code=small_kernel.code("pvh"))
HERMITS_LOADER = elf.image(machine=elf.I386, bits=32, code=small_kernel.code("multiboot", loads=True))
# As Firecracker does, which knows no Multiboot.
_UNIKRAFT_BY_LINUX = elf.unikraft(code=small_kernel.code("linux"))

_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
_TARGETS = {"spt": elf.SPT, "hvt": elf.HVT}
_SAYS = ("told", "exit=0")
_OSV_COMMAND = ("/hello", "two words")


class Kind(NamedTuple):
    """What makes the image, and how lines end that its guest's console is to have in a pod."""

    image: Callable[[], Image]
    told: Callable[[Pod], list[str]]


def image(entrypoint: tuple[str, ...], files: Mapping[str, bytes | Symlink]) -> Image:
    """An image of these files, by a name that no other has."""
    name = hashlib.sha256(repr((entrypoint, sorted(files.items(), key=repr))).encode()).hexdigest()[:12]
    return Image(f"localhost/kind-{name}:test", files, entrypoint=entrypoint)


def urunc(entrypoint: tuple[str, ...], files: Mapping[str, bytes], **values: str) -> Image:
    """An image with the urunc.json that bunny would write for it."""
    said = {f"com.urunc.unikernel.{name}": base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return image(entrypoint, {**files, "/urunc.json": json.dumps(said).encode()})


def packed(entrypoint: tuple[str, ...], files: Mapping[str, bytes], **values: str) -> Image:
    """An image with our own unikernel.json."""
    said = {"annotations": {f"io.unikernel.{name}": value for name, value in values.items()}}
    return image(entrypoint, {**files, "/unikernel.json": json.dumps(said).encode()})


def with_nic(tender: str = "spt") -> bytes:
    """A Solo5 kernel for `tender` with one NIC."""
    return elf.solo5(_TARGETS[tender], nets=[b"service"])


def on_solo5(tender: str) -> dict[str, Kind]:
    """What runs on the tender, by what it is recognised by."""
    app = {"/unikernel/app": with_nic(tender)}
    named = {"hypervisor": tender, "binary": "/unikernel/app", "cmdline": "not these"}
    return {
        "Solo5's notes": Kind(
            lambda: image(("/unikernel/app", *_SAYS), app),
            lambda _: [" ".join(_SAYS)],
        ),
        "NAME.nabla": Kind(
            lambda: image(("/node.nabla", "/home/node/app.js"), {"/node.nabla": with_nic(tender)}),
            lambda pod: [_rumprun(pod, "/node.nabla /home/node/app.js")],
        ),
        "urunc.json of rumprun": Kind(
            lambda: urunc(("redis-server", "/data/conf"), app, unikernelType="rumprun", **named),
            lambda pod: [_rumprun(pod, "redis-server /data/conf")],
        ),
        "urunc.json of mirage": Kind(lambda: urunc(_SAYS, app, unikernelType="mirage", **named), _mirage),
        "unikernel.json": Kind(lambda: packed(_SAYS, app, kernel="/unikernel/app", guest="mirage"), _mirage),
    }


def on_qemu() -> dict[str, Kind]:
    """What runs on QEMU, by what it is recognised by."""
    return {
        "Linux's boot header": Kind(
            # It has no root to go on with.
            lambda: image((KERNEL_PATH,), {KERNEL_PATH: guest.kernel().read_bytes()}),
            lambda _: ["Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"],
        ),
        "Xen's note of PVH": Kind(
            lambda: image(("/app", "two words"), {"/app": small_kernel.kernel()}),
            lambda pod: [f'{_linux(pod)} -- "two words"'],
        ),
        "urunc.json of linux": Kind(
            lambda: urunc(
                ("/init", "harness.poweroff=0"),
                {"/unikernel/linux": guest.kernel().read_bytes(), INITRD_PATH: guest.initrd()},
                unikernelType="linux",
                hypervisor="qemu",
                binary="/unikernel/linux",
                initrd=INITRD_PATH,
            ),
            lambda _: ["guest: up", "guest: powering off"],
        ),
        "Unikraft's sections": Kind(
            lambda: image(("/app", "two words"), {"/app": UNIKRAFT}),
            # QEMU puts a multiboot kernel's path first.
            lambda pod: [f"/unikernel/kernel unikraft {_unikraft(pod)} -- 'two words'"],
        ),
        "urunc.json of an older Unikraft": Kind(
            lambda: urunc(
                ("nginx", "two words"),
                {"/app": UNIKRAFT},
                unikernelType="unikraft",
                unikernelVersion="0.15.0",
                hypervisor="qemu",
                binary="/app",
            ),
            lambda pod: [f"/unikernel/kernel nginx {_older_unikraft(pod)} -- 'two words'"],
        ),
        "OSv's note": Kind(lambda: image(("/app", *_OSV_COMMAND), {"/app": OSV}), lambda pod: [_osv(pod)]),
        "OSv's section": Kind(
            lambda: image(("/app", *_OSV_COMMAND), {"/app": elf.osv(xen=False, code=small_kernel.code("pvh"))}),
            lambda pod: [_osv(pod)],
        ),
        "Hermit's note": Kind(
            lambda: packed(("/app", "two words"), {"/loader": HERMITS_LOADER, "/app": elf.hermit()}, kernel="/loader"),
            # The loader finds an ELF file, which is the program.
            lambda pod: [_hermit(pod), "\x7fELF"],
        ),
    }


def on_firecracker() -> dict[str, Kind]:
    """What runs on Firecracker, which puts the place of a NIC into the command line: the image has to wish for it."""
    wish = {"kernel": "/app", "monitor": "firecracker"}
    place = "virtio_mmio.device=4K@0xd0000000:5"
    return {
        "Unikraft's sections": Kind(
            lambda: packed(("/app", "two words"), {"/app": _UNIKRAFT_BY_LINUX}, **wish),
            lambda pod: [f"unikraft {_unikraft(pod)} {place} -- 'two words'"],
        ),
        "OSv's note": Kind(
            lambda: packed(("/app", *_OSV_COMMAND), {"/app": OSV}, **wish),
            # OSv takes the word off its line before it looks at it (drivers/virtio-mmio.cc).
            lambda pod: [f"{_osv(pod)} {place}"],
        ),
    }


def _mirage(pod: Pod) -> list[str]:
    return [f"--ipv4={pod.address}/24 --ipv4-gateway={GATEWAY} {' '.join(_SAYS)}"]


def _rumprun(pod: Pod, cmdline: str) -> str:
    device = '"if":"ukvmif0","cloner":"True","type":"inet","method":"static"'
    network = f'"addr":"{pod.address}","mask":"24","gw":"{GATEWAY}"'
    variables = f'"env":"{_PATH}","env":"HOSTNAME={pod.name}"'
    return f'{{"cmdline":"{cmdline}","hostname":"{pod.name}","net":{{{device},{network}}},{variables}}}'


def _linux(pod: Pod) -> str:
    return f" ip={pod.address}::{GATEWAY}:255.255.255.0:{pod.name}:eth0:off:{SERVER}"


def _unikraft(pod: Pod) -> str:
    network = f"netdev.ip={pod.address}/24:{GATEWAY}:{SERVER}::{pod.name}:{DOMAIN}"
    return f"{network} env.vars={_PATH} env.vars=HOSTNAME={pod.name}"


def _older_unikraft(pod: Pod) -> str:
    network = f"netdev.ipv4_addr={pod.address} netdev.ipv4_subnet_mask=255.255.255.0 netdev.ipv4_gw_addr={GATEWAY}"
    return f"{network} env.vars={_PATH} env.vars=HOSTNAME={pod.name}"


def _osv(pod: Pod) -> str:
    network = f"--ip=eth0,{pod.address},255.255.255.0 --defaultgw={GATEWAY} --nameserver={SERVER}"
    return f'--power-off-on-abort {network} --env={_PATH} --env=HOSTNAME={pod.name} /hello "two words"'


def _hermit(pod: Pod) -> str:
    settings = f"env=HERMIT_MTU=1500 env=HERMIT_DNS1={SERVER} env={_PATH} env=HOSTNAME={pod.name}"
    network = f"-ip {pod.address} -mask 255.255.255.0 -gateway {GATEWAY}"
    return f"/unikernel/kernel {settings} {network} -- 'two words'"
