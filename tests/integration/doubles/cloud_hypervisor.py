"""A double of Cloud Hypervisor, as its source has it (tags v51.2, v52.0): standard library only, it runs in a monitor's
root.

Its command line is what the real one's parsers take (cloud-hypervisor/src/main.rs, vmm/src/config.rs,
option_parser/src/lib.rs) of what we say; anything else ends it. Of its API it has what needs no body, by the paths of
vmm/src/api/openapi/cloud-hypervisor.yaml.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import sys
from typing import NoReturn

from tests.integration.doubles.guest import VNET_HEADER, Guest

_TUNGETIFF, _TUNSETVNETHDRSZ = 0x800454D2, 0x400454D8  # linux/if_tun.h
_IFF_VNET_HDR = 0x4000
_SIOCGIFMTU = 0x8921  # linux/sockios.h
_ONE = ("kernel", "cmdline", "initramfs", "cpus", "memory", "serial", "console", "seccomp", "api-socket")
_MANY = ("disk", "net")
_KEYS = {
    "cpus": ("boot", "max", "topology", "kvm_hyperv", "max_phys_bits", "affinity", "features"),
    "memory": ("size", "mergeable", "shared", "hugepages", "hugepage_size", "prefault", "thp"),
    "disk": ("path", "readonly", "direct", "iommu", "num_queues", "queue_size", "id", "serial", "image_type"),
    "net": ("tap", "mac", "fd", "iommu", "num_queues", "queue_size", "id", "mtu", "ip", "mask"),
    "api-socket": ("path", "fd"),
}
_NO_CONTENT = b"HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n"
_NOT_FOUND = b'HTTP/1.1 404 \r\nServer: Cloud Hypervisor API\r\nContent-Length: 4\r\n\r\n[""]'


def fail(words: str) -> NoReturn:
    """End as the real one does."""
    sys.exit(f"Error: Cloud Hypervisor exited with the following error:\n  {words}")


def options(words: list[str]) -> dict[str, list[str]]:
    """The command line by option; `--name=value` and `--name value...`, as clap takes them."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in _ONE + _MANY or name in found:
                fail(f"unexpected argument '--{name}' found")
            found[name] = [value] if equals else []
        elif name in _MANY:
            found[name].append(word)
        else:
            fail(f"unexpected argument '{word}' found")
    return found


def parsed(option: str, text: str) -> dict[str, str]:
    """`key=value,key=value`."""
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in _KEYS[option] or not equals:
            fail(f"Unknown option: {key}")
        found[key] = value
    return found


def attach(fd: int, asks_mtu: bool) -> int:
    """net_util/src/tap.rs, from_tap_fd(); virtio-devices/src/net.rs, new_with_tap()."""
    tap = os.dup(fd)
    os.set_blocking(tap, False)
    name, flags = struct.unpack("=16sH22x", fcntl.ioctl(tap, _TUNGETIFF, bytes(40)))
    if not flags & _IFF_VNET_HDR:
        fail("the tap has no virtio-net headers")
    fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("=i", VNET_HEADER))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            said = fcntl.ioctl(asking, _SIOCGIFMTU, name + bytes(24))
            print(f"mtu={struct.unpack_from('=i', said, 16)[0]}", flush=True)
        except OSError as error:
            if asks_mtu:
                fail(f"Cannot create virtio-net device: {error}")
            print("mtu=None", flush=True)
    return tap


def machine(found: dict[str, list[str]], major: int) -> Guest:
    """Everything that the command line names, opened."""
    for part in ("kernel", "initramfs"):
        for path in found.get(part, []):
            os.close(os.open(path, os.O_RDONLY))
    if int(parsed("cpus", found["cpus"][0])["boot"]) < 1 or parsed("memory", found["memory"][0])["size"][-1] != "M":
        fail("cpus or memory")
    for text in found.get("disk", []):
        disk = parsed("disk", text)
        if ("image_type" in disk) and (major < 51 or disk["image_type"] not in ("raw", "qcow2", "vhd", "vhdx")):
            fail("Unknown option: image_type")
        os.close(os.open(disk["path"], os.O_RDONLY if disk.get("readonly") == "on" else os.O_RDWR))
    taps = []
    for text in found.get("net", []):
        nic = parsed("net", text)
        taps.append((attach(int(nic["fd"]), asks_mtu=major < 52), nic["mac"]))
    if (found["serial"], found["console"], found["seccomp"]) != (["tty"], ["off"], ["true"]):
        fail("the guest's console is elsewhere")
    return Guest(found["cmdline"][0], taps)


def request(connection: socket.socket) -> str:
    """Answer one request; its method and path."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            return ""
        head += part
    method, path, version = head.partition(b"\r\n")[0].decode().split(" ")
    known = (method, path, version) == ("PUT", "/api/v1/vm.power-button", "HTTP/1.1")
    connection.sendall(_NO_CONTENT if known else _NOT_FOUND)
    return path if known else ""


def main(version: str) -> None:
    """The program. It ends with 0 on SIGTERM and SIGINT, as the real one does."""
    if sys.argv[1:] == ["--version"]:
        print(f"cloud-hypervisor {version}")
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    found = options(sys.argv[1:])
    os.close(os.open("/dev/kvm", os.O_RDWR))
    guest = machine(found, int(version.lstrip("v").split(".")[0]))
    doors = [socket.socket(fileno=int(parsed("api-socket", text)["fd"])) for text in found.get("api-socket", [])]
    watched: list[int | socket.socket] = [*guest.taps, *doors]
    while True:
        for ready in select.select(watched, (), ())[0]:
            if isinstance(ready, int):
                guest.hear(ready)
                continue
            connection, _ = ready.accept()
            with connection:
                if request(connection).endswith("power-button") and not guest.deaf:
                    print("powering off", flush=True)
                    return
