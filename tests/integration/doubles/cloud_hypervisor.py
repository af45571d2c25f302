"""A double of Cloud Hypervisor, as its source has it (tags v51.2, v52.0): standard library only, it runs in a monitor's
root. There is no real one to be had, from any package registry.

Its command line is what the real one's parsers take of what we say (cloud-hypervisor/src/main.rs); anything else ends
it. It starts without a machine and is told one over its API (vmm/src/api/openapi/cloud-hypervisor.yaml), of which it
has what we use: vm.info, vm.create, vm.add-net, vm.boot, vm.power-button, and vmm.shutdown. As in the real one, a
machine is written down until it is booted, and whatever of it cannot be had is an error of vm.boot (vmm/src/lib.rs). A
key that it does not know it refuses, which the real one would pass over.

Words of the guest's command line have it fail on purpose: `stall=ACTION` leaves the first such request without an
answer or an effect, `dies=ACTION` ends it there, `refuse=ACTION` has it refuse, and `deaf` is a guest that hears no
power button.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tests.integration.doubles.guest import VNET_HEADER, Guest

_TUNGETIFF, _TUNSETVNETHDRSZ = 0x800454D2, 0x400454D8  # linux/if_tun.h
_IFF_TAP, _IFF_VNET_HDR = 0x0002, 0x4000
_SIOCGIFMTU = 0x8921  # linux/sockios.h
_BODY = 51200  # micro-http, src/server.rs, MAX_PAYLOAD_SIZE
_CREATE = {
    "payload": {"kernel", "cmdline", "initramfs"},
    "cpus": {"boot_vcpus", "max_vcpus"},
    "memory": {"size"},
    "serial": {"mode"},
    "console": {"mode"},
    "disks": {"path", "readonly", "image_type"},
}
_NET = {"mac", "num_queues"}
_WORDS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error"}


class Refusal(Exception):
    """An error of the API: its status, and the messages of its causes."""

    def __init__(self, status: int, *messages: str) -> None:
        self.status, self.messages = status, messages


def fail(words: str) -> NoReturn:
    """End as the real one does."""
    sys.exit(f"Error: Cloud Hypervisor exited with the following error:\n  {words}")


def door(words: list[str]) -> socket.socket:
    """The socket of the API, as the command line says."""
    found = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in ("seccomp", "api-socket") or not equals or not word.startswith("--") or name in found:
            fail(f"unexpected argument '{word}' found")
        found[name] = value
    if found.get("seccomp", "true") != "true":
        fail("the guest could ask the kernel for anything")
    kind, _, number = found["api-socket"].partition("=")
    if kind != "fd":
        fail("Please provide a file descriptor")
    return socket.socket(fileno=int(number))


def attach(tap: int, asks_mtu: bool) -> None:
    """net_util/src/tap.rs, from_tap_fd(); virtio-devices/src/net.rs, new_with_tap()."""
    os.set_blocking(tap, False)
    try:
        name, flags = struct.unpack("=16sH22x", fcntl.ioctl(tap, _TUNGETIFF, bytes(40)))
    except OSError as error:
        raise Refusal(500, "Cannot create virtio-net device", f"ioctl failed: {error}") from error
    if flags & (_IFF_TAP | _IFF_VNET_HDR) != _IFF_TAP | _IFF_VNET_HDR:
        raise Refusal(500, "Cannot create virtio-net device", "no tap, or without virtio-net headers")
    fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("=i", VNET_HEADER))
    print(f"tap={name.rstrip(bytes(1)).decode()}", flush=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            said = fcntl.ioctl(asking, _SIOCGIFMTU, name + bytes(24))
            print(f"mtu={struct.unpack_from('=i', said, 16)[0]}", flush=True)
        except OSError as error:
            if asks_mtu:
                raise Refusal(500, "Cannot create virtio-net device", str(error)) from error
            print("mtu=None", flush=True)


def known(told: Any, keys: set[str]) -> dict[str, Any]:
    """What is told, an object with some of those keys."""
    if not isinstance(told, dict) or not set(told) <= keys:
        raise Refusal(400, f"unknown field in {told!r}")
    return told


class Monitor:
    """The real one's `Vmm`."""

    def __init__(self, major: int) -> None:
        self._major = major
        self._machine: dict[str, Any] | None = None
        self._nets: list[tuple[dict[str, Any], list[int]]] = []
        self.guest: Guest | None = None
        self._stalled = False

    def fault(self, action: str, body: bytes) -> str:
        """What the guest's words have it do on purpose at such a request; those of vm.create come with it."""
        words = json.dumps(self._machine).encode() if self._machine else body
        found = re.search(rb"\b(stall|dies|refuse)=" + re.escape(action.partition(" ")[2]).encode() + rb"\b", words)
        if found is None or (found[1] == b"stall" and self._stalled):
            return ""
        return found[1].decode()

    def act(self, action: str, told: Any, files: list[int]) -> Any:
        """The answer to a request, None for no content. Raises Refusal."""
        try:
            work: Callable[[Any, list[int]], Any] = {
                "GET vm.info": self.info,
                "PUT vm.create": self.create,
                "PUT vm.add-net": self.add_net,
                "PUT vm.boot": self.boot,
                "PUT vm.power-button": self.power_button,
                "PUT vmm.shutdown": self.shutdown,
            }[action]
        except KeyError:
            raise Refusal(404, "Not Found") from None
        return work(told, files)

    def machine(self) -> dict[str, Any]:
        """What is written down; nothing is 404 since 53."""
        if self._machine is None:
            raise Refusal(
                404 if self._major >= 53 else 500, "Error from API", "The VM could not be found", "VM is not created"
            )
        return self._machine

    def info(self, told: Any, files: list[int]) -> Any:
        """vmm/src/lib.rs, vm_info()."""
        config = {**self.machine(), "net": [{**net, "fds": fds} for net, fds in self._nets] or None}
        return {"config": config, "state": "Running" if self.guest else "Created", "memory_actual_size": 0}

    def create(self, told: Any, files: list[int]) -> None:
        """vm_create(): descriptors that come along are not taken."""
        if self._machine is not None:
            raise Refusal(500, "Error from API", "The VM could not be created", "VM is already created")
        machine = known(told, set(_CREATE))
        for name, keys in _CREATE.items():
            for part in machine.get(name, []) if name == "disks" else [machine.get(name, {})]:
                known(part, keys)
        if (machine["serial"], machine["console"]) != ({"mode": "Tty"}, {"mode": "Off"}):
            raise Refusal(400, "the guest's console is elsewhere")
        if machine["cpus"]["boot_vcpus"] < 1 or machine["memory"]["size"] % (1 << 20):
            raise Refusal(400, "cpus or memory")
        self._machine = machine

    def add_net(self, told: Any, files: list[int]) -> None:
        """vm_add_net(), vmm/src/config.rs, NetConfig::validate()."""
        self.machine()
        if self.guest is not None:
            raise Refusal(500, "this double plugs no NIC into a guest that runs")
        net = known(told, _NET)
        if files and net.get("num_queues", 2) != 2 * len(files):
            raise Refusal(500, "Error from API", "Number of queues does not match the number of FDs")
        self._nets.append((net, [os.dup(file) for file in files]))

    def boot(self, told: Any, files: list[int]) -> None:
        """vm_boot(): everything that is written down, opened."""
        machine = self.machine()
        if self.guest is not None:
            raise Refusal(500, "Error from API", "The VM could not boot", "VM is already created")
        payload = machine["payload"]
        if self._major < 51 and any("image_type" in disk for disk in machine.get("disks", [])):
            raise Refusal(400, "unknown field image_type")
        try:
            for path in (payload["kernel"], payload.get("initramfs", "/dev/null")):
                os.close(os.open(path, os.O_RDONLY))
            for disk in machine.get("disks", []):
                os.close(os.open(disk["path"], os.O_RDONLY if disk["readonly"] else os.O_RDWR))
        except OSError as error:
            raise Refusal(500, "Error from API", "The VM could not boot", str(error)) from error
        taps = []
        for net, fds in self._nets:
            if len(fds) != 1:
                raise Refusal(500, "Error from API", "The VM could not boot", "Open tap device failed")
            attach(fds[0], asks_mtu=self._major < 52)
            taps.append((fds[0], net["mac"]))
        self.guest = Guest(payload["cmdline"], taps)

    def power_button(self, told: Any, files: list[int]) -> None:
        """vm_power_button(); the guest's end follows."""
        if self.guest is None:
            raise Refusal(500, "Error from API", "The VM is not running")

    def shutdown(self, told: Any, files: list[int]) -> None:
        """vmm_shutdown()."""
        os._exit(0)

    def stall(self, action: str) -> None:
        """Say no more on this connection, and do nothing."""
        self._stalled = True
        print(f"stalled at {action}", flush=True)


def heard(connection: socket.socket) -> tuple[str, bytes, list[int]]:
    """A request: method and action, body, and the descriptors that came with it; "" for none."""
    whole, files = b"", list[int]()
    while b"\r\n\r\n" not in whole:
        part, some, _, _ = socket.recv_fds(connection, 1024, 253)
        if not part:
            return "", b"", files
        whole, files = whole + part, files + list(some)
    head, _, body = whole.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    length = int(found[1]) if found else 0
    while len(body) < min(length, _BODY + 1) and (part := connection.recv(4096)):
        body += part
    method, path, version = head.partition(b"\r\n")[0].decode().split(" ")
    if version != "HTTP/1.1" or not path.startswith("/api/v1/"):
        return "unknown", body, files
    return f"{method} {path.removeprefix('/api/v1/')}", body, files


def answer(connection: socket.socket, status: int, content: Any = None) -> None:
    """Send it."""
    body = b"" if content is None else json.dumps(content).encode()
    head = f"HTTP/1.1 {status} {_WORDS[status]}\r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + body)


def converse(connection: socket.socket, monitor: Monitor) -> str:
    """Take one request and answer it; what was asked for."""
    action, body, files = heard(connection)
    try:
        if not action:
            return action
        fault = monitor.fault(action, body)
        if fault == "dies":
            fail(f"{action} was too much")
        if fault == "stall":
            monitor.stall(action)
            return action
        if fault == "refuse":
            raise Refusal(500, "Error from API", "no such guest")
        if len(body) > _BODY:
            raise Refusal(400, "Request payload is too large")
        content = monitor.act(action, json.loads(body) if body else None, files)
        answer(connection, 200 if content is not None else 204, content)
    except Refusal as refusal:
        answer(connection, refusal.status, list(refusal.messages))
    except (ValueError, KeyError, TypeError) as error:
        answer(connection, 400, ["Error deserializing JSON", repr(error)])
    except ConnectionError:
        pass  # whoever asked is gone
    finally:
        for file in files:
            os.close(file)
    return action


def main(version: str) -> None:
    """The program. It ends with 0 on SIGTERM and SIGINT, as the real one does."""
    if sys.argv[1:] == ["--version"]:
        print(f"cloud-hypervisor {version}")
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    listening = door(sys.argv[1:])
    os.close(os.open("/dev/kvm", os.O_RDWR))
    monitor = Monitor(int(version.lstrip("v").split(".")[0]))
    kept = []  # connections that were answered nothing
    while True:
        watched: list[int | socket.socket] = [*(monitor.guest.taps if monitor.guest else ()), listening]
        for ready in select.select(watched, (), ())[0]:
            if isinstance(ready, int):
                assert monitor.guest is not None
                monitor.guest.hear(ready)
                continue
            connection, _ = ready.accept()
            action = converse(connection, monitor)
            kept.append(connection)
            if action.endswith("power-button") and monitor.guest and not monitor.guest.deaf:
                print("powering off", flush=True)
                return
