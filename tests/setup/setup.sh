#!/bin/bash
# Everything `make test` and `make demo` need, on a Debian 12 as root: `setup.sh [STEP...]`, all steps by default.
#
# A step that is done leaves a stamp under .cache/stamps, so a second run costs nothing; two runs at once wait for
# each other. Needs Debian's and Python's package registries, by whatever way this machine reaches them, and no other.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CACHE=${UNIKERNEL_SHIM_CACHE:-$ROOT/.cache}
STAMPS=$CACHE/stamps
ALL=(packages venv scripts containerd-1.6 containerd-1.7 containerd-2 cni kernel kernel-full firecracker prometheus kind)

# What is installed if it is missing. None of these starts a service.
PACKAGES=(
    python3 python3-venv # the virtual environment
    systemd # systemd-analyze and systemd-socket-activate, for contrib/systemd; it is not started
    runc crun qemu-system-x86 qemu-system-arm # engines and a monitor
    busybox-static # the guest's and the ordinary pods' user land
    containernetworking-plugins iproute2 iptables nftables iputils-ping # networks and a look at them
    xorriso e2fsprogs squashfs-tools erofs-utils cpio btrfs-progs # images of file systems, and a look at them
    chromium # a look at pictures
    patchelf shellcheck # the installer's tree, which has a loader of its own; a reader of contrib's scripts
)
# What containerd's CRI was developed against here; another 2.x is taken, and said, if the suite has moved on.
CONTAINERD_2=2.1.9
# What is kept of the full kernel, which has 9p and is 400 MB: what tests/integration/guest.py has its guest load.
FULL_KERNEL=(
    drivers/virtio/virtio drivers/virtio/virtio_ring drivers/virtio/virtio_mmio
    net/core/failover drivers/net/net_failover drivers/net/virtio_net
    drivers/acpi/button drivers/input/evdev
    fs/netfs/netfs fs/fscache/fscache net/9p/9pnet net/9p/9pnet_virtio fs/9p/9p
)

say() { printf 'set-up: %s\n' "$*" >&2; }

# fail MESSAGE [LOG]
fail() {
    printf '\nset-up failed: %s\n' "$1" >&2
    if [ -n "${2:-}" ] && [ -s "$2" ]; then
        printf 'The last lines of %s:\n' "$2" >&2
        tail -n 15 "$2" | sed 's/^/    /' >&2
    fi
    exit 1
}

# shellcheck source=tests/setup/unpack.sh
. "$HERE/unpack.sh"

step_packages() {
    install_missing "${PACKAGES[@]}"
}

# Only `make bench` asks for this step.
step_bench() {
    install_missing iperf3
    pip_install requirements-bench.lock
}

install_missing() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    # Lists that are missing (a container image) or stale both show as a failed installation.
    apt_install "${missing[@]}" || {
        apt-get -q update >"$CACHE/apt-update.log" 2>&1 ||
            fail "apt-get update failed (no network?)" "$CACHE/apt-update.log"
        apt_install "${missing[@]}" || fail "cannot install ${missing[*]}" "$CACHE/apt-install.log"
    }
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$CACHE/apt-install.log" 2>&1 </dev/null
}

step_venv() {
    say "making the virtual environment"
    [ -x "$ROOT/.venv/bin/python" ] || python3 -m venv "$ROOT/.venv" ||
        fail "python3 -m venv failed: is python3-venv installed?"
    pip_install requirements.lock
    rm -f "$STAMPS/bench" # its packages may be gone
}

# pip_install LOCK
pip_install() {
    "$ROOT/.venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --require-hashes \
        -r "$ROOT/$1" >"$CACHE/pip.log" 2>&1 || fail "pip cannot install $1 (no network?)" "$CACHE/pip.log"
}

# The two programs, run from this checkout; and the generated messages. Cheap, so checked each time.
step_scripts() {
    PATH="$ROOT/.venv/bin:$PATH" "$ROOT/.venv/bin/python" "$ROOT/protos/generate.py" >"$CACHE/proto.log" 2>&1 ||
        fail "the messages cannot be generated from protos/" "$CACHE/proto.log"
    "$ROOT/contrib/install/place.sh" --checkout "$ROOT" "$ROOT/.venv/bin" >/dev/null ||
        fail "the programs cannot be placed in .venv/bin"
}

step_containerd-1.6() {
    say "unpacking $CODENAME's containerd"
    unpack "$CODENAME" "$CACHE/containerd-1.6" containerd
}

step_containerd-1.7() {
    say "unpacking trixie's containerd"
    unpack trixie "$CACHE/containerd-1.7" containerd
}

step_containerd-2() {
    local version
    version=$(candidate forky containerd "$CONTAINERD_2")
    if [ -z "$version" ]; then
        version=$(candidate forky containerd 2.)
        [ -n "$version" ] || fail "forky has no containerd 2.x"
        say "NOTE: forky has moved on from containerd $CONTAINERD_2; the tests run on $version"
    fi
    say "unpacking forky's containerd $version"
    unpack forky "$CACHE/containerd-2" "containerd=$version"
}

step_cni() {
    say "unpacking forky's CNI plugins"
    unpack forky "$CACHE/cni" containernetworking-plugins
}

step_kernel() {
    unpack_kernel "linux-image-cloud-$(dpkg --print-architecture)" "$CACHE/kernel"
}

# The one above has no 9p.
step_kernel-full() {
    local kept=("${FULL_KERNEL[@]/#/./lib/modules/*/kernel/}")
    unpack_kernel "linux-image-$(dpkg --print-architecture)" "$CACHE/kernel-full" -- \
        './boot/vmlinuz-*' "${kept[@]/%/.ko}"
}

# unpack_kernel META TARGET [-- PATTERN...]: the kernel that the package META depends on, as `unpack` does it.
unpack_kernel() {
    local meta=$1 target=$2 package
    shift 2
    suite_lists "$CODENAME"
    package=$(apt_for "$CODENAME" apt-cache depends "$meta" | awk '$1 == "Depends:" && /linux-image-/ { print $2; exit }')
    [ -n "$package" ] || fail "$CODENAME has no $meta"
    say "unpacking $package (a guest's kernel; it is not installed)"
    unpack "$CODENAME" "$target" "$package" "$@"
}

# No distribution has Firecracker; a Python package of another project carries the program as its makers released it.
# Only that file is taken: the package itself is neither installed nor run.
step_firecracker() {
    local scratch
    if [ "$(uname -m)" != x86_64 ]; then
        say "NOTE: there is no Firecracker for $(uname -m) to be had; its tests will skip"
        return
    fi
    say "unpacking Firecracker"
    scratch=$(mktemp -d "$CACHE/unpack.XXXXXX")
    "$ROOT/.venv/bin/python" -m pip download -q --disable-pip-version-check --no-input --no-deps --only-binary :all: \
        --ignore-requires-python --require-hashes -r "$HERE/firecracker.lock" -d "$scratch" >"$CACHE/pip.log" 2>&1 ||
        fail "pip cannot download firecracker.lock (no network?)" "$CACHE/pip.log"
    "$ROOT/.venv/bin/python" -m zipfile -e "$scratch"/*.whl "$scratch/whole" ||
        fail "what firecracker.lock names is no archive"
    mkdir -p "$CACHE/firecracker"
    install -m 755 "$scratch"/whole/*/runtime_bundle/linux-x86_64/bin/firecracker "$CACHE/firecracker/firecracker" ||
        fail "what firecracker.lock names holds no Firecracker"
    rm -rf "$scratch"
}

# What checks the metrics, the alerts and the dashboard as Prometheus reads them. No server is installed or run.
step_prometheus() {
    say "unpacking $CODENAME's promtool"
    unpack "$CODENAME" "$CACHE/prometheus" prometheus -- ./usr/bin/promtool
}

# Reads the clusters' configuration in tests; it starts none.
step_kind() {
    say "unpacking forky's kind"
    unpack forky "$CACHE/kind" kind
}

# fingerprint STEP: what a stamp must say for the step to count as done.
fingerprint() {
    case $1 in
    packages) echo "${PACKAGES[*]}" ;;
    venv) sha256sum <"$ROOT/requirements.lock" ;;
    bench) sha256sum <"$ROOT/requirements-bench.lock" ;;
    containerd-2) echo "$CONTAINERD_2" ;;
    kernel-full) echo "$CODENAME ${FULL_KERNEL[*]}" ;;
    firecracker) sha256sum <"$HERE/firecracker.lock" ;;
    *) echo "$CODENAME" ;;
    esac
}

run_step() {
    local step=$1 stamp="$STAMPS/$1"
    if [ "$step" = venv ] && [ ! -x "$ROOT/.venv/bin/python" ]; then rm -f "$stamp"; fi
    if [ "$step" != scripts ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint "$step")" ]; then return; fi
    "step_$step"
    fingerprint "$step" >"$stamp"
}

main() {
    local step
    [ $# -gt 0 ] || set -- "${ALL[@]}"
    # The virtual environment is anybody's; installing packages and making namespaces is root's.
    if [ "$(id -u)" != 0 ] && [ "$*" != "venv scripts" ]; then
        fail "the set-up installs packages, and the tests make namespaces: run it as root"
    fi
    # shellcheck source=/dev/null
    . /etc/os-release 2>/dev/null || true
    CODENAME=${VERSION_CODENAME:-}
    if [ "${ID:-}" != debian ] || [ -z "$CODENAME" ]; then
        fail "this set-up knows Debian 12 only, and this is ${PRETTY_NAME:-something else}"
    fi
    [ "$CODENAME" = bookworm ] || say "NOTE: written for Debian 12 (bookworm); this is $CODENAME"
    mkdir -p "$STAMPS"
    exec 9>"$CACHE/lock"
    flock -w 1200 9 || fail "another set-up has held $CACHE/lock for twenty minutes"
    rm -rf "$CACHE"/unpack.??????
    for step in "$@"; do
        declare -F "step_$step" >/dev/null || fail "there is no step $step; the steps are ${ALL[*]}"
        # Children must not inherit the lock: a daemon left behind would hold it.
        run_step "$step" 9>&-
    done
}

main "$@"
