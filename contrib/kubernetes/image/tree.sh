#!/bin/bash
# `tree.sh PREFIX`: an installation at PREFIX that asks nothing of its node but a kernel: with an interpreter, a standard
# library, a C library and a loader of its own. Made at the very path where it will lie on nodes, since an ELF file names
# its loader by an absolute path. Run in the image's build, after `make proto` (Dockerfile); PYTHON is the interpreter
# that is copied. What it makes beside what `make install` makes:
#
#     PREFIX/python/bin/python3.N    the interpreter; its loader and its libraries are those in PREFIX/python/lib
#     PREFIX/share/                  what the installer places on a node: units, the configuration, containerd's stanzas
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
prefix=${1:?usage: tree.sh PREFIX}
: "${PYTHON:=/usr/bin/python3}"
python=$prefix/python
share=$prefix/share

fail() { printf 'tree: %s\n' "$*" >&2; exit 1; }

[ ! -e "$prefix" ] || fail "$prefix is there already"
command -v patchelf >/dev/null || fail "patchelf is missing: install it"

# Its own names for things: the executable with links followed, python3.N, and where its standard library is.
{ read -r executable; read -r name; read -r library; } < <("$PYTHON" -ISc '
import os, sys, sysconfig
print(os.path.realpath(sys.executable), f"python3.{sys.version_info.minor}", sysconfig.get_path("stdlib"), sep="\n")')

mkdir -p "$python/bin" "$python/lib"
cp "$executable" "$python/bin/$name"
ln -s "$name" "$python/bin/python3"
# Without what no service needs. -L: Debian keeps some of its modules elsewhere, behind links.
tar -C "$library" --dereference -cf - --exclude=__pycache__ --exclude=./test --exclude='./config-*' --exclude=./idlelib \
    --exclude=./tkinter --exclude=./turtledemo --exclude=./lib2to3 --exclude='./*-packages' . |
    tar -C "$(mkdir -p "$python/lib/$name" && echo "$python/lib/$name")" -xf -

# libraries FILE...: what the dynamic loader finds for them, each once.
libraries() {
    # A file that needs no library makes ldd fail.
    { ldd "$@" 2>/dev/null || true; } | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u
}
mapfile -t extensions < <(find "$python/lib/$name/lib-dynload" -name '*.so')
mapfile -t needed < <(libraries "$executable" "${extensions[@]}")
cp -L "${needed[@]}" "$python/lib/"
loader=$(patchelf --print-interpreter "$executable")
cp -L "$loader" "$python/lib/"
# DT_RPATH, not DT_RUNPATH: the former holds for the libraries of libraries too (ld.so(8)), so for every extension module.
patchelf --set-interpreter "$python/lib/$(basename "$loader")" --force-rpath --set-rpath "$python/lib" "$python/bin/$name"

staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
PREFIX=$prefix BINDIR=$staged/bin SYSCONFDIR=$staged/etc UNITDIR=$staged/units DATADIR=$staged/share DESTDIR='' \
    PYTHON=$python/bin/$name "$here/contrib/install/install.sh" >/dev/null
# containerd runs the courier by the interpreter above, whatever this machine has.
sed -i "1s|.*|#!$python/bin/$name -IS|" "$prefix/venv/bin/containerd-shim-unikernel-v2"
# Extension modules of packages bring their libraries along or need those above.
mapfile -t extensions < <(find "$prefix/venv/lib" -name '*.so')
while read -r library; do
    [ -e "$python/lib/$(basename "$library")" ] || cp -L "$library" "$python/lib/"
done < <(libraries "${extensions[@]}")
# Nothing is installed into it on a node.
"$prefix/venv/bin/python" -m pip uninstall -q -y --disable-pip-version-check pip setuptools 2>/dev/null || true
"$python/bin/$name" -m compileall -q "$python/lib/$name" || fail "the standard library does not compile"

mkdir -p "$share/units"
find "$here/contrib/systemd" \( -name '*.service' -o -name '*.socket' \) -exec cp -t "$share/units" {} +
cp "$here/contrib/config.toml" "$share/"
cp -r "$here/contrib/containerd" "$share/containerd"
