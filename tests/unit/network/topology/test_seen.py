"""What the kernel's messages say beyond a layout: taps, ports, filters, forwarding tables, numbers of namespaces."""

from __future__ import annotations

import pytest

from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.rtnetlink import Family, Ifla, Kind, Message, Nda, Netnsa, Tca
from shim.network.topology.seen import (
    Filter,
    Forwarding,
    Further,
    Port,
    Tap,
    parse_filters,
    parse_forwarding,
    parse_further,
    parse_number,
)

MAC = bytes.fromhex("02005e100002")


def link(*attributes: bytes) -> bytes:
    return rt.LINK.pack(0, rt.ARPHRD_ETHER, 2, rt.IFF_UP, 0) + b"".join(attributes)


def tun(*data: bytes) -> bytes:
    return link(rt.nested(Ifla.LINKINFO, rt.text(Ifla.INFO_KIND, "tun"), rt.nested(Ifla.INFO_DATA, *data)))


def port(state: int, learning: int) -> bytes:
    data = rt.nested(Ifla.INFO_SLAVE_DATA, rt.u8(Ifla.BRPORT_STATE, state), rt.u8(Ifla.BRPORT_LEARNING, learning))
    return link(rt.nested(Ifla.LINKINFO, rt.text(Ifla.INFO_SLAVE_KIND, "bridge"), data))


@pytest.mark.parametrize(
    ("body", "further"),
    [
        (link(), Further()),
        (link(rt.u32(Ifla.LINK_NETNSID, 0)), Further(elsewhere=0)),
        (tun(), Further(tap=Tap(persistent=False, vnet_hdr=False))),
        (
            tun(rt.u32(Ifla.TUN_OWNER, 0), rt.u8(Ifla.TUN_PERSIST, 1), rt.u8(Ifla.TUN_VNET_HDR, 1)),
            Further(tap=Tap(persistent=True, vnet_hdr=True, owner=0)),
        ),
        (port(3, 0), Further(port=Port(state="forwarding", learning=False))),
        (port(0, 1), Further(port=Port(state="disabled", learning=True))),
        (port(9, 1), Further(port=Port(state="9", learning=True))),
        (link(rt.nested(Ifla.LINKINFO, rt.text(Ifla.INFO_SLAVE_KIND, "bond"))), Further()),
    ],
)
def test_an_interface(body: bytes, further: Further) -> None:
    assert parse_further(body) == further


def traffic(handle: int, parent: int, *attributes: bytes) -> Message:
    return Message(Kind.NEWTFILTER, 0, 0, rt.TRAFFIC.pack(0, 2, handle, parent, 0) + b"".join(attributes))


def test_filters_without_their_heads() -> None:
    bpf = (rt.text(Tca.KIND, "bpf"), rt.nested(Tca.OPTIONS, rt.text(Tca.BPF_NAME, "unikernel-wire")))
    messages = [
        traffic(0, rt.INGRESS, rt.text(Tca.KIND, "bpf")),
        traffic(1, rt.INGRESS, *bpf),
        traffic(5, rt.EGRESS, rt.text(Tca.KIND, "flower"), rt.nested(Tca.OPTIONS)),
        traffic(5, 0xFFFF, rt.text(Tca.KIND, "u32")),
    ]
    assert parse_filters(messages) == (
        Filter(link=2, place="ingress", kind="bpf", name="unikernel-wire"),
        Filter(link=2, place="egress", kind="flower", name=""),
    )


def entry(family: int, state: int, *attributes: bytes) -> Message:
    return Message(28, 0, 0, rt.NEIGHBOUR.pack(family, 7, state, 0, 0) + b"".join(attributes))


def test_only_what_a_bridge_learned() -> None:
    mac, bridge = rt.attribute(Nda.LLADDR, MAC), rt.u32(Nda.MASTER, 3)
    messages = [
        entry(Family.BRIDGE, rt.NUD_REACHABLE, mac, bridge),
        entry(Family.BRIDGE, rt.NUD_PERMANENT, mac, bridge),
        entry(Family.BRIDGE, rt.NUD_REACHABLE, mac),
        entry(Family.BRIDGE, rt.NUD_REACHABLE, bridge),
        entry(Family.INET, rt.NUD_REACHABLE, mac, bridge),
    ]
    assert parse_forwarding(messages) == (Forwarding(link=7, mac="02:00:5e:10:00:02"),)


@pytest.mark.parametrize(("number", "means"), [(0, 0), (12, 12), (0xFFFFFFFF, None)])
def test_the_number_of_a_namespace(number: int, means: int | None) -> None:
    assert parse_number(rt.GENERIC.pack(0) + rt.u32(Netnsa.NSID, number)) == means


@pytest.mark.parametrize("parse", [parse_further, lambda body: parse_filters([Message(44, 0, 0, body)])])
def test_a_message_that_cannot_be_is_refused(parse: object) -> None:
    assert callable(parse)
    broken = rt.LINK.pack(0, 1, 2, 0, 0) + rt.u32(Ifla.MTU, 1500) + b"\x03\x00\x01\x00"
    filtered = rt.TRAFFIC.pack(0, 2, 1, rt.INGRESS, 0) + b"\x03\x00\x01\x00"
    with pytest.raises(ValueError, match="attribute of 3 bytes"):
        parse(broken if parse is parse_further else filtered)
