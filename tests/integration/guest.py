"""The guest the tests boot: Debian's cloud kernel with an initrd of busybox and an init of our own. Where a test needs
9p, which that kernel was built without, Debian's full one.

The init configures the NICs from the kernel's command line: `ip=` in the kernel's own grammar, which this kernel was
built without (Documentation/admin-guide/nfs/nfsroot.rst), and in dracut's, with `ifname=` (dracut.cmdline(7)). On port
80, over both versions of IP, it serves a page that only this boot of this guest could give. On request it does things
from inside: the network must be tested both ways.

    GET /                        the page: boot id, addresses, MAC, kernel, command line; `key: value` lines
    GET /cgi-bin/fetch?ADDRESS   the guest fetches / of ADDRESS, port 80, and returns what it got
    GET /cgi-bin/ping?ADDRESS    the guest pings ADDRESS, once
    GET /cgi-bin/show            links, addresses, routes and neighbours as the guest sees them, and what of virtio each
                                 NIC has negotiated, as a line `features NIC: 0110…`, bit 0 first
    GET /cgi-bin/file?PATH       the SHA-256 of a file or device of the guest's
    GET /cgi-bin/write?PATH      a line is written to that file; `ok`, or why not
    GET /cgi-bin/blob?KIBIBYTES  so much at random, the same again for the same number
    GET /cgi-bin/sum?KIBIBYTES   the SHA-256 of that
    POST /cgi-bin/sum            the SHA-256 of what was posted

It stays in its initrd, and mounts at /root what `root=` names, as `rootfstype=` and `rootflags=` say, and where they
say what words of systemd's name (`systemd.mount-extra=WHAT:WHERE:TYPE:OPTIONS`, systemd-fstab-generator(8)).

Words of the command line that it obeys: `harness.poweroff=SECONDS` powers off after so long (0: at once, with no
network), `harness.crash` panics, `harness.deaf` takes no notice of the power button, which else powers it off,
`harness.sum=PATH` says the SHA-256 of a file. What it prints on the console begins with `guest:`; `guest: ready` comes
last.
"""

from __future__ import annotations

import gzip
import io
import stat
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.integration import paths

#: Debian's flavours of the kernel that there are, by the set-up's step that unpacks each.
CLOUD, FULL = "kernel", "kernel-full"

#: In the order they must be loaded: the kernel is told, not asked, since there is no depmod in the guest.
MODULES = (
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_mmio",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/acpi/button",
    "drivers/input/evdev",
)
#: For monitors that give the guest a PCI bus, and for block devices.
MODULES_MORE = (
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
)

#: For what is mounted: file systems, each behind what it needs.
MODULES_STORAGE = (
    "drivers/block/virtio_blk",
    "fs/squashfs/squashfs",
    "lib/libcrc32c",
    "fs/erofs/erofs",
    "drivers/cdrom/cdrom",
    "fs/isofs/isofs",
)

#: For directories that the monitor shares; the full kernel has them.
MODULES_9P = (
    "fs/netfs/netfs",
    "fs/fscache/fscache",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/9p/9p",
)

READY = "guest: ready"
#: What spares the kernel its self-tests of ciphers, a fifth of a boot under emulation (kernel-parameters.txt).
WORDS = "cryptomgr.notests"

_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
read -r cmdline < /proc/cmdline
word() { for w in $cmdline; do case $w in "$1"=*) echo "${w#*=}"; return;; esac; done; }
every() { for w in $cmdline; do case $w in "$1"=*) echo "${w#*=}"; esac; done; }
off() { echo "guest: powering off"; $b poweroff -f; $b reboot -f; }
echo "guest: up"
case " $cmdline " in *" harness.crash "*) echo c > /proc/sysrq-trigger;; esac
after=$(word harness.poweroff)
[ "$after" = 0 ] && off
for m in $($b cat /modules/order); do $b insmod /modules/$m.ko || echo "guest: no $m"; done
on() { $b mkdir -p "$2" && $b mount -t "$3" -o "$4" "$1" "$2" || echo "guest: $1 cannot be mounted"; }
root=$(word root)
if [ -n "$root" ]; then
    case " $cmdline " in *" rw "*) mode=rw;; *) mode=ro;; esac
    flags=$(word rootflags)
    on "$root" /root "$(word rootfstype)" "$mode${flags:+,$flags}"
fi
for word in $(every systemd.mount-extra); do
    rest=${word#*:}; where=${rest%%:*}; rest=${rest#*:}
    on "${word%%:*}" "$where" "${rest%%:*}" "${rest#*:}"
done
file=$(word harness.sum)
[ -n "$file" ] && echo "guest: $($b sha256sum "$file")"
# A press and its release are events of 24 bytes each (input.rst, struct input_event); only the button sends any.
heed() { $b dd if=/dev/input/event0 of=/dev/null bs=24 count=1 2>/dev/null && echo "guest: power button" && off; }
case " $cmdline " in *" harness.deaf "*) ;; *) heed & ;; esac
$b ip link set lo up
# NAME:MAC; by way of other names, since one's new name can be another's old one
for word in $(every ifname); do
    for device in /sys/class/net/*; do
        [ "$($b cat $device/address)" = "${word#*:}" ] && $b ip link set "${device##*/}" name "x${word%%:*}"
    done
done
for word in $(every ifname); do $b ip link set "x${word%%:*}" name "${word%%:*}"; done
for device in /sys/class/net/eth*; do
    [ -e "$device" ] || { echo "guest: no eth0"; continue; }
    for name in accept_dad dad_transmits accept_ra; do
        echo 0 > /proc/sys/net/ipv6/conf/${device##*/}/$name
    done
    $b ip link set "${device##*/}" up
done
# client:server:gateway:netmask:hostname:device:autoconf:mtu, or a name server last; IPv6 addresses in brackets
configure() {
    rest=$1
    set --
    while :; do
        case $rest in
            "["*) one=${rest#?}; one=${one%%"]"*}; rest=${rest#*"]"};;
            *) one=${rest%%:*}; rest=${rest#"$one"};;
        esac
        set -- "$@" "$one"
        [ -n "$rest" ] || break
        rest=${rest#:}
    done
    case $8 in ""|*[!0-9]*) ;; *) $b ip link set "$6" mtu "$8";; esac
    case $1 in
        *:*) $b ip -6 address add "$1/$4" dev "$6"; family=-6; [ "$6" = eth0 ] && address6=$1;;
        ?*) $b ifconfig "$6" "$1" netmask "${4:-255.255.255.0}"; family=-4; [ "$6" = eth0 ] && address=$1;;
    esac
    [ -n "$3" ] && $b ip $family route add default via "$3" dev "$6" metric $((100 + ${6#eth}))
    [ -n "$5" ] && $b hostname "$5"
}
for word in $(every ip); do configure "$word"; done
# network:gateway:device, IPv6 in brackets
for word in $(every rd.route); do
    device=${word##*:}; word=${word%:*}
    case $word in
        "["*) network=${word%%"]"*}; via=${word##*"["}; family=-6;;
        *) network=${word%:*}; via=${word##*:}; family=-4;;
    esac
    $b ip $family route add "${network#"["}" via "${via%"]"}" dev "$device"
done
{
    echo "unikernel: yes"
    echo "boot: $($b cat /proc/sys/kernel/random/boot_id)"
    echo "address: ${address:-none}"
    echo "address6: ${address6:-none}"
    echo "mac: $($b cat /sys/class/net/eth0/address 2>/dev/null || echo none)"
    echo "kernel: $($b cat /proc/version)"
    echo "cmdline: $cmdline"
    echo "init: $0 $*"
} > /www/index.html
echo "guest: $($b grep boot: /www/index.html)"
$b ip address show
$b ip route show
$b ip -6 route show
$b httpd -h /www -p 80
echo "guest: ready"
if [ -n "$after" ]; then $b sleep "$after"; off; fi
while :; do $b sleep 3600; done
"""

_CGI = "#!/bin/busybox sh\nb=/bin/busybox\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n"
# Not wget: a static busybox's needs name-service files even for an address.
_FETCH = _CGI + "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | $b nc -w 5 \"$QUERY_STRING\" 80 2>&1 || echo failed\n"
_PING = _CGI + '$b ping -c 1 -W 3 "$QUERY_STRING" 2>&1 && echo ok || echo failed\n'
_SHOW = (
    _CGI
    + """$b ip address show; $b ip route show; $b ip -6 route show; $b ip neigh show
for device in /sys/class/net/eth*; do echo "features ${device##*/}: $($b cat $device/device/features)"; done
"""
)
_FILE = _CGI + '$b sha256sum "$QUERY_STRING" 2>&1\n'
_WRITE = _CGI + 'echo "written by the guest" > "$QUERY_STRING" && $b sync && echo ok || echo failed\n'
_BLOB = (
    _CGI
    + """file=/tmp/blob.$QUERY_STRING
[ -e $file ] || $b dd if=/dev/urandom of=$file bs=1024 count="$QUERY_STRING" 2>/dev/null
"""
)
_SUM = """if [ "$REQUEST_METHOD" = POST ]; then $b head -c "$CONTENT_LENGTH" | $b sha256sum; exit; fi
"""


def kernel(flavour: str = CLOUD) -> Path:
    """The kernel's bzImage."""
    found = sorted(paths.cached(flavour, "boot").glob("vmlinuz-*"))
    if not found:
        raise paths.NotSetUp(f"there is no vmlinuz in the cache; run tests/setup/setup.sh {flavour}")
    return found[-1]


def _module(name: str, flavour: str) -> bytes:
    (tree,) = paths.cached(flavour, "lib", "modules").iterdir()
    path = tree / "kernel" / f"{name}.ko"
    if not path.exists():
        raise paths.NotSetUp(f"tests/setup/setup.sh {flavour} has unpacked no {name}.ko")
    return path.read_bytes()


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst) of (name, mode with type, data)."""
    out = io.BytesIO()

    def put(inode: int, name: str, mode: int, data: bytes) -> None:
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        out.write(b"\0" * (-out.tell() % 4))
        out.write(data + b"\0" * (-len(data) % 4))

    number = 0
    for number, (name, mode, data) in enumerate(entries, start=1):
        put(number, name, mode, data)
    put(number + 1, "TRAILER!!!", 0, b"")
    return out.getvalue()


def initrd(
    *, more_modules: Sequence[str] = (), files: Mapping[str, bytes] | None = None, flavour: str = CLOUD
) -> bytes:
    """The guest's compressed initrd, with modules of that kernel; `files` adds executable files by absolute path."""
    content = {**tree(more_modules, flavour), **{name.lstrip("/"): data for name, data in (files or {}).items()}}
    directories = {str(parent) for name in content for parent in Path(name).parents if str(parent) != "."}
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(directories | {"proc", "sys", "dev", "tmp"})]
    entries += [(name, stat.S_IFREG | 0o755, data) for name, data in content.items()]
    entries.append(("bin/sh", stat.S_IFLNK | 0o777, b"busybox"))
    # Little compression: the guest inflates it under emulation, and the time is the test's.
    return gzip.compress(cpio(entries), compresslevel=1, mtime=0)


def tree(more_modules: Sequence[str] = (), flavour: str = CLOUD) -> dict[str, bytes]:
    """The executable files of the guest's user space by their paths, without the leading slash."""
    names = MODULES + tuple(more_modules)
    return {
        "init": _INIT.encode(),
        "bin/busybox": Path(paths.program("busybox")).read_bytes(),
        "www/cgi-bin/fetch": _FETCH.encode(),
        "www/cgi-bin/ping": _PING.encode(),
        "www/cgi-bin/show": _SHOW.encode(),
        "www/cgi-bin/file": _FILE.encode(),
        "www/cgi-bin/write": _WRITE.encode(),
        "www/cgi-bin/blob": (_BLOB + "$b cat $file\n").encode(),
        "www/cgi-bin/sum": (_CGI + _SUM + _BLOB.removeprefix(_CGI) + "$b sha256sum $file\n").encode(),
        "modules/order": "\n".join(Path(name).name for name in names).encode(),
        **{f"modules/{Path(name).name}.ko": _module(name, flavour) for name in names},
    }


def qemu(initrd_file: Path, tap: str, console: Path, words: str) -> list[str]:
    """A command line that boots the guest by hand, on the named tap, with its console in a file.

    microvm has no clock but the PIT to calibrate the TSC by, and under emulation that fails about every other time;
    then the kernel waits for ever. So it is told the rate, which under TCG is the host's.
    """
    rate = next(
        line.split()[-1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("cpu MHz")
    )
    words += f" tsc_early_khz={int(float(rate) * 1000)}"
    return [
        *(paths.program("qemu-system-x86_64"), "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "128"),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", f"file:{console}"),
        *("-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no"),
        *("-device", "virtio-net-device,netdev=n0,mac=02:00:00:00:00:99"),
        *("-kernel", str(kernel()), "-initrd", str(initrd_file), "-append", words),
    ]


def wait_ready(console: Path, process: subprocess.Popen[bytes], *, within: float = 30.0) -> None:
    """Wait for the guest to say that it is ready. Raises AssertionError with the console if it does not."""
    deadline = time.monotonic() + within
    while READY not in (text := console.read_text(errors="replace") if console.exists() else ""):
        assert process.poll() is None and time.monotonic() < deadline, f"the guest is not ready:\n{text[-4000:]}"
        time.sleep(0.05)


def page(text: str) -> dict[str, str]:
    """The page's `key: value` lines."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines()) if value}
