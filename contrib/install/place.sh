#!/bin/bash
# Put the two programs where they run from: `place.sh [--checkout ROOT] BIN_DIR`.
#
# containerd executes the courier once per pod and waits for it, so it is a copy of shim/courier.py run by a bare
# interpreter (-I -S: no site packages, no environment), not a console script of the virtual environment. With
# --checkout, BIN_DIR also gets a `unikernel-shim` that runs from that checkout; an installation has its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
checkout=
if [ "${1:-}" = --checkout ]; then
    checkout=$(cd "$2" && pwd)
    shift 2
fi
bin=$(cd "${1:?usage: place.sh [--checkout ROOT] BIN_DIR}" && pwd)

# place MODE NAME: replaces $bin/NAME by stdin, in one step, if it differs.
place() {
    local fresh
    fresh=$(mktemp "$bin/.$2.XXXXXX")
    cat >"$fresh"
    chmod "$1" "$fresh"
    if cmp -s "$fresh" "$bin/$2"; then rm "$fresh"; else mv "$fresh" "$bin/$2"; fi
}

# The system's interpreter if it is new enough: a virtual environment's reads one more file at each start.
interpreter=/usr/bin/python3
"$interpreter" -ISc 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    interpreter=$("$bin/python3" -ISc 'import os, sys; print(os.path.realpath(sys.executable))')

{
    echo "#!$interpreter -IS"
    grep -v '^#!' "$here/shim/courier.py"
} | place 755 containerd-shim-unikernel-v2

if [ -n "$checkout" ]; then
    place 755 unikernel-shim <<SCRIPT
#!$bin/python3
import sys

sys.path.insert(0, "$checkout")
from shim.cli.main import main

sys.exit(main())
SCRIPT
fi
