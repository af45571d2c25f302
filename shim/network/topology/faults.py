"""What of a plumbed interface is not as it was planned, or keeps its guest from the network. Pure.

The faults are in the order in which one would look: from the guest outwards. What must be wrong because something else
is missing is not said twice.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from shim.network.addressing.interfaces import MARK
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Link
from shim.network.topology.chains import entry_of
from shim.network.topology.model import Chain, Fault
from shim.network.topology.planned import Planned
from shim.network.topology.seen import ON_A_PARENT, Beyond, Seen

_AGAIN = "end the unikernel: its pod's network is put back, and plumbed anew for its next life"


def find(netns: str, planned: Planned, chain: Chain, seen: Seen, beyond: Beyond) -> tuple[Fault, ...]:
    """All faults of one interface of the namespace at `netns`, by the ids of `chain`."""
    finder = _Finder(netns, planned, chain, seen, beyond)
    return (
        *finder.tap(),
        *finder.programs(),
        *finder.bridge(),
        *finder.ports(),
        *finder.interface(),
        *finder.node(),
        *finder.sizes(),
    )


class _Finder:
    def __init__(self, netns: str, planned: Planned, chain: Chain, seen: Seen, beyond: Beyond) -> None:
        self._netns, self._planned, self._chain, self._seen, self._beyond = netns, planned, chain, seen, beyond
        self._nic = planned.nic
        self._link, self._tap = seen.link(planned.nic.index), seen.link(planned.tap_index)
        self._bridge = seen.link(planned.bridge_index) if planned.bridge else None

    def tap(self) -> Iterator[Fault]:
        nic, tap = self._nic, self._tap
        if tap is None:
            sentence = f"{nic.tap or 'the tap'} is gone: the guest has no way out"
            yield self._fault("tap-missing", "tap", sentence, _AGAIN, field="state")
            return
        if not tap.up:
            yield self._down("tap-down", "tap", tap)
        elif tap.kind == "tun" and not tap.carrier:
            sentence = f"nobody has {tap.name} open: the monitor has ended, or has not begun"
            yield self._fault("tap-not-open", "guest-tap", sentence, "read the monitor's last words with inspect")
        if self._link is not None and nic.dataplane == "macvtap" and tap.parent != self._link.index:
            yield self._fault("no-macvtap", "tap-interface", f"{tap.name} is not on {self._link.name}", _AGAIN)

    def bridge(self) -> Iterator[Fault]:
        nic, bridge = self._nic, self._bridge
        if not self._planned.bridge:
            return
        if bridge is None:
            sentence = f"{self._planned.bridge} is gone: nothing joins {nic.tap} to {nic.name}"
            yield self._fault("bridge-missing", "bridge", sentence, _AGAIN, field="state")
            return
        if not bridge.up:
            yield self._down("bridge-down", "bridge", bridge)
        if nic.mac and any(each.mac == nic.mac and each.link == nic.index for each in self._seen.forwarding):
            sentence = f"{bridge.name} has learned the guest's MAC {nic.mac} behind {nic.name}, and sends it there"
            remedy = self._in_pod(f"bridge fdb del {nic.mac} dev {nic.name} master")
            yield self._fault("guest-behind-wire", "bridge", sentence, remedy, field="learned", value=nic.mac)
        behind = (each.mac for each in self._seen.forwarding if each.link == self._planned.tap_index)
        yield from self._strangers("bridge", behind)

    def ports(self) -> Iterator[Fault]:
        """Of our bridge."""
        if self._bridge is None:
            return
        for link, joint in ((self._tap, "tap-bridge"), (self._link, "bridge-interface")):
            if link is not None:
                yield from self._port(self._bridge, link, joint)

    def _port(self, bridge: Link, link: Link, joint: str) -> Iterator[Fault]:
        port = self._seen.further[link.index].port if link.index in self._seen.further else None
        if link.master != bridge.index or port is None:
            sentence = f"{link.name} is no port of {bridge.name}"
            yield self._fault("no-port", joint, sentence, self._set(link, f"master {bridge.name}"))
            return
        if port.state != "forwarding" and link.up and link.carrier and bridge.up:
            sentence = f"{bridge.name}'s port {link.name} is {port.state}, not forwarding"
            yield self._fault("port-state", joint, sentence, self._in_pod(f"bridge link set dev {link.name} state 3"))
        if link.index == self._nic.index and port.learning and self._planned.known:
            sentence = f"{bridge.name} learns MACs from {link.name}: the guest's own, sent back, would be one of them"
            remedy = self._in_pod(f"bridge link set dev {link.name} learning off")
            yield self._fault("port-learning", joint, sentence, remedy)

    def interface(self) -> Iterator[Fault]:
        nic, link = self._nic, self._link
        if link is None:
            yield self._fault(
                "interface-missing", "interface", f"{nic.name} is gone", "make the pod anew", field="state"
            )
            return
        if not link.up:
            yield self._down("interface-down", "interface", link)
        if not self._planned.known:
            return
        if not link.alias.startswith(MARK):
            sentence = f"{link.name} does not carry our mark any more: another unikernel could be given it as well"
            yield self._fault("mark", "interface", sentence, self._set(link, f"alias {MARK}SANDBOX, its id"))
        if link.mac != self._planned.mac:
            yield self._fault(
                "interface-mac",
                "interface",
                self._about_mac(link),
                self._set(link, f"address {self._planned.mac}"),
                field="mac",
            )
        for address in (str(each) for each in self._seen.layout.addresses if each.link == link.index):
            if address in self._planned.addresses:
                sentence = f"{link.name} still holds {address}: the pod's own stack answers in the guest's place"
                remedy = self._in_pod(f"ip addr del {address} dev {link.name}")
                yield self._fault("address-held", "interface", sentence, remedy, field="addresses", value=address)
        for device in self._planned.deaf:
            if self._seen.layout.sysctls.get(f"net/ipv6/conf/{device}/disable_ipv6") == "0":
                role = {nic.name: "interface", nic.tap: "tap"}.get(device, "bridge")
                sentence = f"IPv6 is on at {device}: the pod's own stack speaks on the guest's wire"
                remedy = self._in_pod(f"sysctl -w net.ipv6.conf.{device}.disable_ipv6=1")
                yield self._fault("ipv6-on", role, sentence, remedy)

    def _about_mac(self, link: Link) -> str:
        guest = self._nic.mac
        if link.mac == guest:
            return f"{link.name} has the guest's MAC {guest}: the bridge keeps what is for the guest"
        if self._planned.mac == guest:
            return (
                f"{link.name} has the MAC {link.mac}, not the guest's {guest}, and takes nothing that is for the guest"
            )
        return f"{link.name} has the MAC {link.mac}, and was given {self._planned.mac}"

    def programs(self) -> Iterator[Fault]:
        for element in self._chain.elements:
            for program in element.programs if element.state != "missing" else ():
                if not program.there:
                    where = f"{element.name}'s {program.place}"
                    yield self._fault(
                        "program-missing",
                        element.id.rpartition(":")[2],
                        f"the program {program.name} is gone from {where}, and its work is not done: {program.does}",
                        _AGAIN,
                        field="programs",
                        value=f"{program.place} {program.name}",
                    )

    def node(self) -> Iterator[Fault]:
        link, peer, switch, port = self._link, self._beyond.peer, self._beyond.switch, self._beyond.port
        if link is None or peer is None:
            return
        if not peer.up:
            sentence = f"{peer.name}, which {link.name} leads to, is down"
            yield self._fault("peer-down", "peer", sentence, f"ip link set {peer.name} up", field="state")
        if switch is not None:
            if not switch.up:
                remedy = f"ip link set {switch.name} up"
                yield self._fault("switch-down", "switch", f"{switch.name} is down", remedy, field="state")
            elif port is not None and peer.up and link.up and port.state != "forwarding":
                sentence = f"{switch.name}'s port {peer.name} is {port.state}, not forwarding"
                yield self._fault("port-state", "peer-switch", sentence, f"bridge link set dev {peer.name} state 3")
            # Behind a macvlan's parent are its other children too.
            yield from self._forwarding(peer, switch) if link.kind not in ON_A_PARENT else ()
        yield from self._neighbours(peer, switch)

    def _forwarding(self, peer: Link, switch: Link) -> Iterator[Fault]:
        mac = self._nic.mac
        for each in self._beyond.forwarding:
            if mac and each.mac == mac and each.link != peer.index:
                port = self._beyond.ports.get(each.link, str(each.link))
                sentence = f"{switch.name} has the guest's MAC {mac} behind {port}, not behind {peer.name}"
                remedy = f"find who else on {switch.name} sends from {mac}"
                yield self._fault("guest-elsewhere", "switch", sentence, remedy, field="learned", value=mac)
        if self._nic.dataplane != "bridge":  # in a bridge of ours it is seen nearer to the guest
            yield from self._strangers("switch", (e.mac for e in self._beyond.forwarding if e.link == peer.index))

    def _strangers(self, role: str, learned: Iterable[str]) -> Iterator[Fault]:
        """What was learned from the guest's own frames shows with which MAC it sends."""
        mac, macs = self._nic.mac, list(learned)
        if mac and macs and mac not in macs:
            sentence = f"the guest sends from {macs[0]}, and was told {mac}"
            remedy = "have the guest's driver take the MAC that its device has"
            yield self._fault("guest-mac", role, sentence, remedy, field="learned", value=macs[0])

    def _neighbours(self, peer: Link, switch: Link | None) -> Iterator[Fault]:
        mac = self._nic.mac
        for neighbour in self._beyond.neighbours:
            device = peer if switch is None or neighbour.link == peer.index else switch
            role, entry = "peer" if device is peer else "switch", entry_of(neighbour)
            if entry.state == "failed":
                sentence = f"the router asked for {entry.address} on {device.name}, and nobody answered"
                code, remedy = "neighbour-failed", "read the guest's console: has it come up, with that address?"
            elif mac and entry.mac and entry.mac != mac and neighbour.state & rt.NUD_VALID:
                sentence = f"the router sends what is for {entry.address} to {entry.mac}, and the guest is {mac}"
                remedy = f"ip neigh del {entry.address} dev {device.name}"
                code = "neighbour-mac"
                if entry.state == "permanent":
                    remedy += "; whoever made it permanent must renew it"
            else:
                continue
            yield self._fault(code, role, sentence, remedy, field="neighbours", value=entry.address)

    def sizes(self) -> Iterator[Fault]:
        """MTUs: last, as small packets pass all the same."""
        told, link, peer = self._nic.mtu, self._link, self._beyond.peer
        if told and self._tap is not None and self._tap.mtu != told:
            sentence = f"{self._tap.name} has an MTU of {self._tap.mtu}, and the guest was told {told}"
            yield self._fault("tap-mtu", "tap", sentence, self._set(self._tap, f"mtu {told}"), field="mtu")
        for role, device, wanted in (("bridge", self._bridge, told), ("interface", link, self._nic.link_mtu or told)):
            if device is not None and device.mtu < told:
                sentence = f"{device.name} has an MTU of {device.mtu}, less than the {told} that the guest was told"
                yield self._fault(f"{role}-mtu", role, sentence, self._set(device, f"mtu {wanted}"), field="mtu")
        if link is not None and peer is not None and link.kind == "veth" and peer.mtu != link.mtu:
            sentence = f"{peer.name} has an MTU of {peer.mtu}, and {link.name} has {link.mtu}"
            yield self._fault("peer-mtu", "peer", sentence, f"ip link set {peer.name} mtu {link.mtu}", field="mtu")

    def _down(self, code: str, role: str, link: Link) -> Fault:
        return self._fault(code, role, f"{link.name} is down", self._set(link, "up"), field="state")

    def _set(self, link: Link, words: str) -> str:
        return self._in_pod(f"ip link set {link.name} {words}")

    def _in_pod(self, command: str) -> str:
        """A command line, in the pod's namespace."""
        return f"nsenter --net={shlex.quote(self._netns)} {command}"

    def _fault(self, code: str, role: str, sentence: str, remedy: str, *, field: str = "", value: str = "") -> Fault:
        at = f"{self._nic.name}:{role}"
        return Fault(code=code, at=at, sentence=sentence, remedy=remedy, field=field, value=value)
