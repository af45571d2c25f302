"""A Linux guest's command line: golden ones, and that the kernel reads back what was written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import Dns, GuestSpec, Volume
from shim.guests.registry import guests
from shim.network.view import GuestInterface
from tests.unit.guests import golden
from tests.unit.guests.dual_stack import DUAL, SIX
from tests.unit.guests.interfaces import ETH0, NET1, NO_ADDRESS, NO_GATEWAY

_LINUX = guests()["linux"]
_ALWAYS = "console=ttyS0 quiet panic=-1 reboot=t"
_NET1_SIX = GuestInterface(name="net1", mac="02:00:00:00:00:02", mtu=9000, address6=IPv6Interface("fd07::9/64"))
_SOMEWHERE = GuestInterface(
    name="eth0",
    mac=ETH0.mac,
    mtu=1500,
    address=ETH0.address,
    gateway=ETH0.gateway,
    routes=(IPv4Network("172.16.0.0/12"),),
)
_ROUTED = GuestInterface(
    name="net1",
    mac="02:00:00:00:00:02",
    mtu=1500,
    address=NET1.address,
    gateway=IPv4Address("192.168.7.1"),
    address6=_NET1_SIX.address6,
    gateway6=IPv6Address("fe80::1"),
    routes=(IPv4Network("172.16.0.0/12"), IPv6Network("fd08::/16")),
)
_NAMES = "ifname=eth0:02:00:00:00:00:01 ifname=eth1:02:00:00:00:00:02"

_SPACES = " \t\n\v\f\r\xa0"


def kernel_reads(line: str) -> list[str]:
    """The words that Linux makes of a command line, written from next_arg()'s behaviour: bytes are Latin-1 to it, a
    quote toggles, and one pair around a word or around the value behind its first `=` is taken off."""
    text = line.encode().decode("latin-1")
    found = []
    while text := text.lstrip(_SPACES):
        quoted = text[0] == '"'
        text = text[1:] if quoted else text
        inside, end = quoted, 0
        while end < len(text) and (inside or text[end] not in _SPACES):
            inside ^= text[end] == '"'
            end += 1
        word, text = text[:end], text[end:]
        name, equals, value = word.partition("=")
        if equals and value.startswith('"'):
            value = value[1:].removesuffix('"')
        if quoted and not equals:
            name = name.removesuffix('"')
        elif quoted:
            value = value.removesuffix('"')
        found.append((name + equals + value).encode("latin-1").decode())
    return found


def line(spec: GuestSpec) -> str:
    return " ".join(_LINUX.words(spec))


@pytest.mark.parametrize(
    ("spec", "golden"),
    [
        (GuestSpec(), _ALWAYS),
        (
            GuestSpec(interfaces=(ETH0,), hostname="web-0"),
            f"{_ALWAYS} ip=10.1.2.3::10.1.2.1:255.255.255.248:web-0:eth0:off",
        ),
        (GuestSpec(interfaces=(NO_GATEWAY,)), f"{_ALWAYS} ip=10.1.2.3:::255.255.255.248::eth0:off"),
        (GuestSpec(interfaces=(NO_ADDRESS,)), _ALWAYS),
        (
            GuestSpec(interfaces=(DUAL,), hostname="web-0"),
            f"{_ALWAYS} ip=[fd00:10::5]::[fe80::1]:64:web-0:eth0:none:1450"
            " ip=10.1.2.3::10.1.2.1:255.255.255.248:web-0:eth0:off"
            " nfsaddrs=10.1.2.3:0.0.0.0:10.1.2.1:255.255.255.248:web-0:eth0:off",
        ),
        (
            GuestSpec(interfaces=(SIX,), hostname="web-0"),
            f"{_ALWAYS} ip=[fd00::5]::[fd00::6]:126:web-0:eth0:none:1280 nfsaddrs=off",
        ),
        (
            GuestSpec(interfaces=(ETH0, NET1), hostname="web-0"),
            f"{_ALWAYS} {_NAMES} ip=192.168.7.9:::255.255.255.0::eth1:none:9000"
            " ip=10.1.2.3::10.1.2.1:255.255.255.248:web-0:eth0:off"
            " nfsaddrs=10.1.2.3:0.0.0.0:10.1.2.1:255.255.255.248:web-0:eth0:off",
        ),
        (
            GuestSpec(interfaces=(NO_GATEWAY, _NET1_SIX)),
            f"{_ALWAYS} {_NAMES} ip=[fd07::9]:::64::eth1:none:9000"
            " ip=10.1.2.3:::255.255.255.248::eth0:off"
            " nfsaddrs=10.1.2.3:0.0.0.0:0.0.0.0:255.255.255.248:localhost:eth0:off",
        ),
        (
            GuestSpec(interfaces=(ETH0, _ROUTED), hostname="h"),
            f"{_ALWAYS} {_NAMES} ip=[fd07::9]:::64::eth1:none:1500 ip=192.168.7.9:::255.255.255.0::eth1:none:1500"
            " rd.route=172.16.0.0/12:192.168.7.1:eth1 rd.route=[fd08::/16]:[fe80::1]:eth1"
            " ip=10.1.2.3::10.1.2.1:255.255.255.248:h:eth0:off"
            " nfsaddrs=10.1.2.3:0.0.0.0:10.1.2.1:255.255.255.248:h:eth0:off",
        ),
        (
            GuestSpec(interfaces=(_SOMEWHERE,), hostname="h"),
            f"{_ALWAYS} rd.route=172.16.0.0/12:10.1.2.1:eth0 ip=10.1.2.3:::255.255.255.248:h:eth0:off"
            " nfsaddrs=10.1.2.3:0.0.0.0:10.1.2.1:255.255.255.248:h:eth0:off",
        ),
        (
            GuestSpec(interfaces=(NO_ADDRESS, NET1)),
            f"{_ALWAYS} {_NAMES} ip=192.168.7.9:::255.255.255.0::eth1:none:9000 nfsaddrs=off",
        ),
        (
            GuestSpec(interfaces=(ETH0, NO_ADDRESS)),
            f"{_ALWAYS} ifname=eth0:02:00:00:00:00:01"
            " ifname=eth1:02:00:00:00:00:01 ip=10.1.2.3::10.1.2.1:255.255.255.248::eth0:off",
        ),
        (GuestSpec(cmdline="  debug   rdinit=/x "), f"{_ALWAYS} debug rdinit=/x"),
        (GuestSpec(arguments=("-c", "echo a b", "")), f'{_ALWAYS} -- -c "echo a b" ""'),
        (GuestSpec(arguments=("--opt=a b", "x y=z")), f'{_ALWAYS} -- --opt="a b" "x y=z"'),
        (
            GuestSpec(environment={"PATH": "/bin", "A": "1", "B": "x y", "HOSTNAME": "n", "C": ""}),
            f'{_ALWAYS} A=1 B="x y" C=',
        ),
        (
            GuestSpec(cmdline='dyndbg="file a +p" -- first', environment={"A": "1"}, arguments=("second",)),
            f'{_ALWAYS} A=1 dyndbg="file a +p" -- first second',
        ),
        (GuestSpec(arguments=("à",)), f'{_ALWAYS} -- "à"'),
    ],
)
def test_golden(spec: GuestSpec, golden: str) -> None:
    assert line(spec) == golden


_IMAGE = Volume(target="/", format="squashfs", disk=0)
_OF_A_CONTAINER = {"PATH": "/usr/local/bin:/bin", "HOME": "/root", "TERM": "xterm", "HOSTNAME": "web-0", "A": "b c"}
_CASES = {
    "console": GuestSpec(console="ttyAMA0"),
    "dns": GuestSpec(interfaces=(ETH0,), hostname="web-0", dns=Dns(servers=("10.96.0.10",), searches=("svc",))),
    "dns-two": GuestSpec(interfaces=(DUAL,), hostname="web-0", dns=Dns(servers=("10.96.0.10", "1.1.1.1"))),
    "dns-more": GuestSpec(interfaces=(ETH0,), dns=Dns(servers=("fd00::a", "10.96.0.10", "1.1.1.1", "8.8.8.8"))),
    "dns-without-ipv4": GuestSpec(interfaces=(SIX,), dns=Dns(servers=("10.96.0.10", "fd00::a"))),
    "root": GuestSpec(volumes=(_IMAGE,), arguments=("/bin/web", "-p", "80", "a b"), environment=_OF_A_CONTAINER),
    "root-writable": GuestSpec(volumes=(Volume(target="/", format="ext4", disk=0, read_only=False),)),
    "root-of-unknown-format": GuestSpec(volumes=(Volume(target="/", format="", disk=0),), arguments=("/my init",)),
    "root-shared": GuestSpec(
        volumes=(Volume(target="/", format="9p", device="root", read_only=False),), arguments=("/bin/sh",)
    ),
    "root-initrd": GuestSpec(volumes=(Volume(target="/", format="cpio"),), arguments=("/init", "x")),
    "root-virtiofs": GuestSpec(volumes=(Volume(target="/", format="virtiofs", device="root"),)),
    "root-and-own-init": GuestSpec(volumes=(_IMAGE,), cmdline="init=/sbin/init debug", arguments=("-c", "x")),
    "root-and-own-quoted-init": GuestSpec(volumes=(_IMAGE,), cmdline='"init=/my init"', arguments=("-c", "x")),
    "root-and-own-arguments": GuestSpec(
        volumes=(_IMAGE,), cmdline="debug -- init=first", arguments=("/bin/x", "second")
    ),
    "volumes": GuestSpec(
        interfaces=(ETH0,),
        environment={"A": "1"},
        volumes=(
            _IMAGE,
            Volume(target="/data", format="ext4", disk=1, read_only=False),
            Volume(target="", format="", disk=2),
            Volume(target="/etc/my config", format="iso9660", disk=27),
            Volume(target="/some", format="", disk=25),
            Volume(target="/shared", format="9p", device="shared"),
            Volume(target="/fast", format="virtiofs", device="fast", read_only=False),
        ),
        arguments=("/bin/web",),
    ),
    "volumes-of-an-initrd": GuestSpec(
        environment=_OF_A_CONTAINER,
        volumes=(Volume(target="/data", format="erofs", disk=0),),
        arguments=("-c", "ls"),
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_golden_file(case: str) -> None:
    golden.check(_LINUX, case, _CASES[case])


def test_golden_files() -> None:
    golden.check_files(_LINUX, _CASES)


def _variables(count: int) -> dict[str, str]:
    return {f"E{number}": "1" for number in range(count)}


class IpConfig:
    """What a kernel with CONFIG_IP_PNP makes of its command line, from ip_auto_config_setup()'s behaviour: each word is
    split at every colon, and a field that is not empty overwrites. An address is read digit by digit, whatever is there
    (in_aton()), so it is taken for set unless it is zero."""

    def __init__(self, words: list[str]) -> None:
        self.enabled = False
        self.fields: dict[int, str] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name in ("ip", "nfsaddrs"):
                self._read(value)

    def _read(self, value: str) -> None:
        self.enabled = value not in ("", "off", "none")
        if not self.enabled:
            return
        self.fields = {number: text for number, text in self.fields.items() if number < 7}  # name servers
        for number, text in enumerate(value.split(":")):
            if text == "0.0.0.0" and number < 4:
                self.fields.pop(number, None)
            elif number == 6:
                self.enabled = self.enabled and (text in ("on", "any") or 0 in self.fields)
            elif text:
                self.fields[number] = text


_ADDRESSES = st.integers(1, 2**128 - 2).map(IPv6Address)


@st.composite
def _interfaces(draw: st.DrawFn) -> GuestInterface:
    """Any NIC, with or without either address and either gateway."""
    four, six = draw(st.booleans()), draw(st.booleans())
    return GuestInterface(
        name="eth0",
        mac="02:00:00:00:00:01",
        mtu=draw(st.integers(1280, 65535)),
        address=IPv4Interface((draw(st.integers(1, 2**32 - 2)), draw(st.integers(8, 30)))) if four else None,
        gateway=IPv4Address(draw(st.integers(1, 2**32 - 2))) if four and draw(st.booleans()) else None,
        address6=IPv6Interface((int(draw(_ADDRESSES)), draw(st.integers(1, 128)))) if six else None,
        gateway6=draw(_ADDRESSES) if six and draw(st.booleans()) else None,
    )


_SERVERS = st.lists(st.integers(1, 2**32 - 2).map(IPv4Address) | _ADDRESSES, max_size=4)


@given(
    interfaces=st.lists(_interfaces(), max_size=4),
    hostname=st.sampled_from(["", "web-0", "dhcp.any"]),
    servers=_SERVERS,
)
def test_the_kernel_itself_ends_with_the_first_nics_ipv4(
    interfaces: list[GuestInterface], hostname: str, servers: list[IPv4Address | IPv6Address]
) -> None:
    """Whatever else is said for user space; with the first two name servers of that version."""
    dns = Dns(servers=tuple(map(str, servers)))
    words = kernel_reads(line(GuestSpec(interfaces=tuple(interfaces), hostname=hostname, dns=dns)))
    found = IpConfig(words)
    first = interfaces[0] if interfaces else NO_ADDRESS
    assert found.enabled is (first.address is not None)
    if first.address is not None:
        named = {4: hostname} if hostname else {}
        if found.fields.get(4) == "localhost":
            named = {4: "localhost"}
        gateway = {2: str(first.gateway)} if first.gateway else {}
        address = {0: str(first.address.ip), 3: str(first.address.netmask), 5: "eth0"}
        own = [str(server) for server in servers if server.version == 4][:2]
        assert found.fields == address | gateway | named | dict(enumerate(own, 7))
    if interfaces:
        own = own if first.address is not None else []
        others = [word.removeprefix("nameserver=") for word in words if word.startswith("nameserver=")]
        assert sorted([*own, *others]) == sorted(dns.servers)


# What a command line can hold: no control characters that end it, and no double quote.
_TEXT = st.text(st.characters(exclude_characters='"\0\n\r', exclude_categories=["Cs"]), max_size=20)


@given(arguments=st.lists(_TEXT.filter(lambda text: text != "--"), max_size=8))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    words = kernel_reads(line(GuestSpec(arguments=tuple(arguments))))
    assert words[4:] == (["--", *arguments] if arguments else [])


@given(environment=st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), _TEXT, max_size=8))
def test_the_environment_comes_out_as_it_went_in(environment: dict[str, str]) -> None:
    for name in ("PATH", "HOME", "TERM", "HOSTNAME"):
        environment.pop(name, None)
    words = kernel_reads(line(GuestSpec(environment=environment)))
    assert words[4:] == [f"{name}={value}" for name, value in environment.items()]


_PATHS = st.text(
    st.characters(exclude_characters='":\\\0\n\r', exclude_categories=["Cs"]), min_size=1, max_size=20
).map("/{}".format)


@given(
    targets=st.lists(_PATHS.filter(lambda path: path != "/"), max_size=4),
    program=_PATHS,
    arguments=st.lists(_TEXT.filter(lambda text: text != "--"), max_size=4),
)
def test_volumes_and_init_come_out_as_they_went_in(targets: list[str], program: str, arguments: list[str]) -> None:
    """A word for each volume, of four fields without escapes; the program is init, and has the other arguments."""
    mounted = [Volume(target=target, format="ext4", disk=number) for number, target in enumerate(targets, 1)]
    words = kernel_reads(line(GuestSpec(volumes=(_IMAGE, *mounted), arguments=(program, *arguments))))
    fields = [word.partition("=")[2].split(":") for word in words if word.startswith("systemd.mount-extra=")]
    devices = ["/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/vde"]
    assert fields == [[device, path, "ext4", "ro"] for device, path in zip(devices, targets, strict=False)]
    named = words.index(f"init={program}")
    assert words[named + 1 :] == (["--", *arguments] if arguments else [])


def test_home_and_term_take_no_place_of_the_environments() -> None:
    _LINUX.words(GuestSpec(volumes=(_IMAGE,), environment=_variables(31) | {"HOME": "/", "TERM": "xterm"}))


@pytest.mark.parametrize(
    ("spec", "subject", "why"),
    [
        (GuestSpec(arguments=('say "hi"',)), "args", "double quote"),
        (GuestSpec(arguments=("a\nb",)), "args", "line break"),
        (GuestSpec(arguments=("a\0b",)), "args", "NUL"),
        (GuestSpec(arguments=("a", "--", "b")), "args", "second --"),
        (GuestSpec(arguments=("a",) * 32), "args", "32 are more than the 31"),
        (GuestSpec(environment={"A": 'x"y'}), "env A", "double quote"),
        (GuestSpec(environment={"A": "x\ny"}), "env A", "line break"),
        (GuestSpec(environment={"a.b": "1"}), "env a.b", "cannot be told"),
        (GuestSpec(environment={"a b": "1"}), "env a b", "cannot be told"),
        (GuestSpec(environment={"": "1"}), "env ", "cannot be told"),
        (GuestSpec(environment={"ip": "off"}), "env ip", "parameter of its own"),
        (GuestSpec(environment={"nfsaddrs": "off"}), "env nfsaddrs", "parameter of its own"),
        (GuestSpec(environment={"rootfstype": "9p"}), "env rootfstype", "parameter of its own"),
        (GuestSpec(environment={"rw": ""}), "env rw", "parameter of its own"),
        (GuestSpec(environment=_variables(32)), "env", "32 are more than the 31 .* enableServiceLinks"),
        (GuestSpec(environment=_variables(31), interfaces=(ETH0,)), "env", "31 are more than the 30"),
        (GuestSpec(environment=_variables(29), interfaces=(DUAL, NET1)), "env", "more than the 28"),
        (GuestSpec(cmdline='a="b'), "io.unikernel.cmdline", "not closed"),
        (GuestSpec(cmdline="a\nb"), "io.unikernel.cmdline", "line break"),
        (GuestSpec(arguments=("x" * 2000,)), "args and env", "takes fewer than 1984"),
        (GuestSpec(interfaces=(ETH0,), hostname="a b"), "hostname", "'a b'"),
        (GuestSpec(interfaces=(ETH0,), hostname="a:b"), "hostname", "'a:b'"),
        (GuestSpec(interfaces=(ETH0,), dns=Dns(servers=("ns",))), "dns", "'ns' is no IP address"),
        (GuestSpec(volumes=(_IMAGE, _IMAGE)), "/", "two volumes"),
        (GuestSpec(volumes=(_IMAGE,), arguments=("web", "-p")), "args", "'web'.*absolute path.*whole path"),
        (GuestSpec(volumes=(_IMAGE,), arguments=('/we"b',)), "args", "double quote"),
        (GuestSpec(volumes=(_IMAGE,), environment=_variables(32)), "env", "32 are more than the 31"),
        (GuestSpec(volumes=(Volume(target="/", format="ufs", disk=0),)), "/", "cannot mount ufs"),
        (GuestSpec(volumes=(Volume(target="/d", format="zfs", disk=0),)), "/d", "cannot mount zfs"),
        (GuestSpec(volumes=(Volume(target="/a:b", format="ext4", disk=0),)), "/a:b", "without colons"),
        (GuestSpec(volumes=(Volume(target="d", format="ext4", disk=0),)), "d", "absolute path"),
        (GuestSpec(volumes=(Volume(target='/a"b', format="ext4", disk=0),)), "volumes", "double quote"),
    ],
)
def test_what_cannot_be_said(spec: GuestSpec, subject: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        _LINUX.words(spec)
    assert caught.value.subject == subject
