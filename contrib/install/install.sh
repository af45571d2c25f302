#!/bin/bash
# `make install`: a virtual environment and the documents under PREFIX, two links in BINDIR, the units, what shells complete
# by, and a configuration if there is none. DESTDIR is put before each for packaging; nothing is enabled or started.
# Run again, it upgrades. PREFIX/made lists what it made that was not there before, for uninstall.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${PREFIX:=/opt/unikernel-shim}" "${BINDIR:=/usr/local/bin}" "${SYSCONFDIR:=/etc}" "${UNITDIR:=/etc/systemd/system}"
: "${DATADIR:=/usr/local/share}" "${DESTDIR:=}" "${PYTHON:=/usr/bin/python3}"
target=$DESTDIR$PREFIX
python=$target/venv/bin/python
made=()

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

# Also after a failure, so that uninstall.sh finds what there is by then. Parents come first.
write_list() {
    [ -d "$target" ] && [ ${#made[@]} -gt 0 ] || return 0
    { cat "$target/made" 2>/dev/null || true; printf '%s\n' "${made[@]}"; } | awk '!seen[$0]++' >"$target/made.new"
    mv "$target/made.new" "$target/made"
}
trap write_list EXIT

# folder DIRECTORY (below DESTDIR): make what is missing of it.
folder() {
    [ ! -d "$DESTDIR$1" ] || return 0
    [ "$1" = / ] || folder "$(dirname "$1")"
    mkdir "$DESTDIR$1" || fail "cannot write to $DESTDIR$1: run it as root, or with DESTDIR"
    made+=("$1")
}

# put FILE (below DESTDIR): stdin, in one step. Not behind a pipe, where the list would be a subshell's.
put() {
    folder "$(dirname "$1")"
    [ -e "$DESTDIR$1" ] || made+=("$1")
    cat >"$DESTDIR$1.new"
    mv "$DESTDIR$1.new" "$DESTDIR$1"
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is not Python 3.11 or later"
mkdir -p "${DESTDIR:-/}"
folder "$PREFIX"
folder "$BINDIR"

"$PYTHON" -m venv --clear "$target/venv" || fail "$PYTHON has no venv module: install python3-venv"
# The locked releases, checked by hash: those the tests ran with. `make` has generated shim/wire in the checkout.
"$python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/requirements-node.lock"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/shim"
(cd "$here" && find shim -name __pycache__ -prune -o \( -name '*.py' -o -name '*.pyi' -o -name py.typed \) -print0 |
    tar --null -T - -cf -) | tar -C "$site" -xf -
"$python" -m compileall -q "$site/shim"

"$here/contrib/install/place.sh" "$target/venv/bin"
# A virtual environment's paths are where it will run, not where it was staged.
printf '#!%s/venv/bin/python3\nimport sys\n\nfrom shim.cli.main import main\n\nsys.exit(main())\n' "$PREFIX" \
    >"$target/venv/bin/unikernel-shim"
chmod 755 "$target/venv/bin/unikernel-shim"
for name in unikernel-shim containerd-shim-unikernel-v2; do
    ln -sfn "$PREFIX/venv/bin/$name" "$DESTDIR$BINDIR/$name"
done

for unit in "$here"/contrib/systemd/unikernel-shim.*; do
    put "$UNITDIR/${unit##*/}" < \
        <(sed "s|@BINDIR@|$BINDIR|; s|@SYSCONFDIR@|$SYSCONFDIR|; s|@PREFIX@|$PREFIX|" "$unit")
done
# As in the checkout, so that the pages' links to each other hold.
while IFS= read -r file; do
    put "$PREFIX/share/doc/$file" <"$here/$file"
done < <(cd "$here" && find README.md docs contrib/containerd contrib/grafana contrib/kubernetes contrib/prometheus \
    contrib/systemd -type f \
    \( -name '*.md' -o -name '*.conf' -o -name '*.json' -o -name '*.toml' -o -name '*.yaml' -o -name '*.svg' \) | sort)
if "$python" -m shim.cli.main --help | grep -q '^  completion '; then
    completion() { "$python" -m shim.cli.main completion "$1"; }
    put "$DATADIR/bash-completion/completions/unikernel-shim" < <(completion bash)
    put "$DATADIR/zsh/site-functions/_unikernel-shim" < <(completion zsh)
    put "$DATADIR/fish/vendor_completions.d/unikernel-shim.fish" < <(completion fish)
fi
config=$SYSCONFDIR/unikernel-shim/config.toml
if [ ! -e "$DESTDIR$config" ]; then
    mkdir -p "$DESTDIR${config%/*}"  # not in the list: they stay with it
    cp "$here/contrib/config.toml" "$DESTDIR$config"
fi

cat <<TEXT
Installed under $target.
Next: systemctl daemon-reload && systemctl enable unikernel-shim && systemctl restart unikernel-shim
      register it in containerd as $PREFIX/share/doc/contrib/containerd/README.md says, then restart containerd
      kubectl apply -f $PREFIX/share/doc/contrib/kubernetes/runtimeclass.yaml
      kubectl label node NODE io.unikernel/shim=true, by which its classes find this node
TEXT
