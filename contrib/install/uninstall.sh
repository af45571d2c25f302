#!/bin/bash
# `make uninstall`: everything that install.sh made, except the configuration.
set -euo pipefail

: "${PREFIX:=/opt/unikernel-shim}" "${BINDIR:=/usr/local/bin}" "${SYSCONFDIR:=/etc}" "${DESTDIR:=}"

fail() { printf 'uninstall: %s\n' "$*" >&2; exit 1; }

if [ -z "$DESTDIR" ] && command -v systemctl >/dev/null; then
    for unit in unikernel-shim.service unikernel-shim.socket; do
        ! systemctl --quiet is-active "$unit" 2>/dev/null ||
            fail "$unit is active; pods would lose their runtime. First: systemctl disable --now unikernel-shim.{service,socket}"
    done
fi
list=$DESTDIR$PREFIX/made
[ -e "$list" ] || fail "$list is missing: nothing is installed there, or by an earlier release; then make install first"
for name in unikernel-shim containerd-shim-unikernel-v2; do
    link=$DESTDIR$BINDIR/$name
    # Only a link of ours: another installation may have put its own there.
    [ "$(readlink "$link" 2>/dev/null)" != "$PREFIX/venv/bin/$name" ] || rm -f "$link"
done
rm -rf "$DESTDIR$PREFIX/venv"
mapfile -t made < <(tac "$list")
rm -f "$list"
for path in "${made[@]}"; do
    if [ -d "$DESTDIR$path" ]; then
        # Others may have put something there meanwhile, and the configuration is below one.
        rmdir --ignore-fail-on-non-empty "$DESTDIR$path"
    else
        rm -f "$DESTDIR$path"
    fi
done
config=$DESTDIR$SYSCONFDIR/unikernel-shim
[ ! -e "$config" ] || echo "The configuration stays: $config"
