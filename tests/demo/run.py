"""`make demo`: a unikernel pod next to an ordinary one, on a real containerd, in both kinds of pod network.

Exit code 0 only if all of it held. Everything is in one network namespace and one directory, and goes with them, also
after Ctrl-C.

The guest is Debian's cloud kernel with an initrd made here, under QEMU. With KERNEL set it is that Solo5 kernel
instead, on its tender from PATH; it must answer HTTP on port 80. It is told its network by KERNEL_ARGS, in which
{address}, {prefix} and {gateway} are filled in as the plan for the pod has them:

    make demo KERNEL=server.spt KERNEL_ARGS="--ipv4={address}/{prefix} --ipv4-gateway={gateway}"
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from tests.integration import guest, images, paths
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node

#: Seconds a guest may take to answer; under emulation on a busy machine it takes its time.
PATIENCE = 25.0

WHAT = {
    "subnet": "one subnet behind a bridge (the reference CNI plugin `bridge`)",
    "routed": "a /32 behind 169.254.1.1 (what Calico leaves, blackhole route included)",
}


class NotHeld(Exception):
    """Something that the demo claims is not so."""


def main() -> int:
    """Run the demo; the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            show(stack)
    except KeyboardInterrupt:
        print("\nInterrupted; everything it made is gone.", file=sys.stderr)
        return 130
    except (NotHeld, paths.NotSetUp, AssertionError) as error:
        print(f"\nIt did not hold: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"\nIt did not hold: {error}", file=sys.stderr)
        return 1
    print(f"\nAll of it held, and nothing is left, in {time.monotonic() - began:.0f} s.")
    return 0


def show(stack: ExitStack) -> None:
    """Both layouts on one containerd and one daemon."""
    node = stack.enter_context(Node("demo"))
    daemon = Daemon(node, doubles=not os.environ.get("KERNEL"))
    containerd = Containerd(node)
    for server in (daemon, containerd):
        stack.callback(server.stop)
    try:
        daemon.start()
        containerd.start()
        containerd.load(image())
        print(f"containerd {containerd.version} and unikernel-shim run in the network namespace {node.netns}.")
        for layout in LAYOUTS:
            print(f"\n=== {layout}: {WHAT[layout]} ===")
            with LeakCheck(node, containerd):
                one_layout(node, containerd, layout)
            print("After the pods: no namespace, link, route, rule, mount, cgroup, process or file is left.")
    except (NotHeld, AssertionError, grpc.RpcError):
        print(daemon.tail(30), containerd.tail(10), sep="\n", file=sys.stderr)
        raise


def image() -> images.Image:
    """The unikernel's image."""
    kernel = os.environ.get("KERNEL")
    if not kernel:
        return images.linux()
    if not Path(kernel).is_file():
        raise NotHeld(f"there is no kernel {kernel}")
    return images.Image(images.LINUX, {"/kernel": Path(kernel).read_bytes()}, entrypoint=("/kernel",))


def arguments(node: Node, netns: Path) -> list[str]:
    """What the user's Solo5 kernel is told of the pod's network."""
    template = os.environ.get("KERNEL_ARGS", "") if os.environ.get("KERNEL") else ""
    if not template:
        return []
    plan = json.loads(node.run(str(paths.DAEMON), "plan", "--netns", str(netns), "--json"))
    nic = plan["guest"][0]
    address, _, prefix = nic["address"].partition("/")
    return template.format(address=address, prefix=prefix, gateway=nic["gateway"]).split()


def one_layout(node: Node, containerd: Containerd, layout: str) -> None:
    """One ordinary pod and one unikernel pod, what they say to each other, and the network as it was."""
    cri = containerd.cri
    own = not os.environ.get("KERNEL")
    annotations = images.LINUX_ANNOTATIONS if own else {}
    with (
        cri.pod(handler("runc", layout), name="ordinary") as ordinary,
        cri.pod(handler("unikernel", layout), name="unikernel", annotations=annotations) as pod,
    ):
        shell = ordinary.run(images.BUSYBOX)
        netns = containerd.netns(pod.address)
        require(node.ping(pod.address), f"the node cannot ping {pod.address} before the unikernel is there")
        before, mac = picture(node, netns), node.neighbour(pod.address)
        print(f"Pod {pod.address} before its unikernel; the router knows it as {mac}:\n{before}")

        words = arguments(node, netns)
        began = time.monotonic()
        container = pod.run(images.LINUX, args=words)
        started = time.monotonic() - began
        print(f"with its unikernel, started in {started * 1000:.0f} ms:\n{picture(node, netns)}")
        answer = wait(lambda: fetched(cri, shell, pod.address), f"no answer from {pod.address}", pod, container)
        page = guest.page(answer)
        print(
            f"The ordinary pod {ordinary.address} fetched http://{pod.address}/ after {time.monotonic() - began:.1f} s:"
        )
        print("".join(f"    {line}\n" for line in answer.splitlines()), end="")

        if own:
            require(page.get("unikernel") == "yes", "the page is not the guest's")
            require(page.get("boot", "-") in pod.log(container), "the guest's console does not know that boot id")
            require(page.get("mac") == mac, f"the guest has the MAC {page.get('mac')}, the router expects {mac}")
            back = node.fetch(pod.address, f"/cgi-bin/ping?{ordinary.address}")
            require("ok" in back.split(), "the guest cannot ping back")
            print(f"The guest can ping {ordinary.address}.")
        require(node.neighbour(pod.address) == mac, "the router's neighbour entry has changed")
        print(f"The router still has {mac} for it.")

        cri.stop(container)
        cri.remove(container)
        after = picture(node, netns)
        require(after == before, f"the pod's network is not as before:\n{after}")
        require(not fetched(cri, shell, pod.address), "somebody else than the guest answered HTTP")
        require(node.ping(pod.address), "the pod's own eth0 does not answer again")
        print("After the unikernel the pod's network is as it was, to the letter.")


def fetched(cri: Any, shell: str, address: str) -> str:
    """What the ordinary pod gets from `address`, or an empty string."""
    output = cri.exec(shell, "fetch", address)
    return str(output.stdout) if output.exit_code == 0 else ""


def wait(attempt: Callable[[], str], otherwise: str, pod: Pod, container: str) -> str:
    """The first answer that is not empty. Raises NotHeld with the guest's console."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := attempt():
            return answer
        time.sleep(0.1)
    raise NotHeld(f"{otherwise} in {PATIENCE:.0f} s; the guest's console:\n{pod.log(container)}")


def picture(node: Node, netns: Path) -> str:
    """Links, addresses and routes of a namespace, without what changes by itself."""
    lines: list[str] = []
    for command in (("-brief", "link"), ("-brief", "-4", "address"), ("route",)):
        lines += node.run("nsenter", f"--net={netns}", "ip", *command, "show").splitlines()
    return "\n".join(f"    {' '.join(line.split())}" for line in lines if not line.startswith("lo "))


def require(held: bool, otherwise: str) -> None:
    """Raises NotHeld unless it held."""
    if not held:
        raise NotHeld(otherwise)


if __name__ == "__main__":
    raise SystemExit(main())
