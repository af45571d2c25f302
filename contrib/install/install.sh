#!/bin/bash
# `make install`: a virtual environment of its own under PREFIX, two links in BINDIR, the unit, and a configuration if
# there is none. DESTDIR is put before each for packaging; nothing is enabled or started. Run again, it upgrades.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${PREFIX:=/opt/unikernel-shim}" "${BINDIR:=/usr/local/bin}" "${SYSCONFDIR:=/etc}" "${UNITDIR:=/etc/systemd/system}"
: "${DESTDIR:=}" "${PYTHON:=/usr/bin/python3}"
target=$DESTDIR$PREFIX

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is not Python 3.11 or later"
mkdir -p "$target" "$DESTDIR$BINDIR" "$DESTDIR$SYSCONFDIR/unikernel-shim" "$DESTDIR$UNITDIR" ||
    fail "cannot write to $target: run it as root, or with DESTDIR"

"$PYTHON" -m venv --clear "$target/venv" || fail "$PYTHON has no venv module: install python3-venv"
# The locked releases, checked by hash: those the tests ran with. `make` has generated shim/wire in the checkout.
"$target/venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/requirements-node.lock"
site=$("$target/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/shim"
(cd "$here" && find shim -name __pycache__ -prune -o \( -name '*.py' -o -name '*.pyi' -o -name py.typed \) -print0 |
    tar --null -T - -cf -) | tar -C "$site" -xf -
"$target/venv/bin/python" -m compileall -q "$site/shim"

"$here/contrib/install/place.sh" "$target/venv/bin"
# A virtual environment's paths are where it will run, not where it was staged.
printf '#!%s/venv/bin/python3\nimport sys\n\nfrom shim.cli.main import main\n\nsys.exit(main())\n' "$PREFIX" \
    >"$target/venv/bin/unikernel-shim"
chmod 755 "$target/venv/bin/unikernel-shim"
for name in unikernel-shim containerd-shim-unikernel-v2; do
    ln -sfn "$PREFIX/venv/bin/$name" "$DESTDIR$BINDIR/$name"
done

sed "s|@BINDIR@|$BINDIR|; s|@SYSCONFDIR@|$SYSCONFDIR|" "$here/contrib/systemd/unikernel-shim.service" \
    >"$DESTDIR$UNITDIR/unikernel-shim.service"
config=$DESTDIR$SYSCONFDIR/unikernel-shim/config.toml
[ -e "$config" ] || cp "$here/contrib/config.toml" "$config"

cat <<TEXT
Installed under $target.
Next: systemctl daemon-reload && systemctl enable --now unikernel-shim
      register it in containerd with one of $here/contrib/containerd/*.toml, then restart containerd
      kubectl apply -f $here/contrib/kubernetes/runtimeclass.yaml
TEXT
