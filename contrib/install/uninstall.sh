#!/bin/bash
# `make uninstall`: what install.sh put there, except the configuration.
set -euo pipefail

: "${PREFIX:=/opt/unikernel-shim}" "${BINDIR:=/usr/local/bin}" "${SYSCONFDIR:=/etc}" "${UNITDIR:=/etc/systemd/system}"
: "${DESTDIR:=}"

if [ -z "$DESTDIR" ] && command -v systemctl >/dev/null && systemctl --quiet is-active unikernel-shim 2>/dev/null; then
    echo "uninstall: the service runs; its pods would lose their runtime. Stop it first: systemctl disable --now unikernel-shim" >&2
    exit 1
fi
for name in unikernel-shim containerd-shim-unikernel-v2; do
    link=$DESTDIR$BINDIR/$name
    # Only a link of ours: another installation may have put its own there.
    [ "$(readlink "$link" 2>/dev/null)" = "$PREFIX/venv/bin/$name" ] && rm -f "$link"
done
rm -rf "$DESTDIR$PREFIX/venv"
rmdir --ignore-fail-on-non-empty "$DESTDIR$PREFIX" 2>/dev/null || true
rm -f "$DESTDIR$UNITDIR/unikernel-shim.service"
config=$DESTDIR$SYSCONFDIR/unikernel-shim
[ ! -e "$config" ] || echo "The configuration stays: $config"
