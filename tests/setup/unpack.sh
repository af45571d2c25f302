# shellcheck shell=bash
# Debian packages downloaded and unpacked, never installed. Sourced by setup.sh, which sets CACHE, CODENAME and fail.

# apt_for SUITE COMMAND...: an apt program that sees SUITE only, from the machine's own sources, with its state under
# CACHE: the machine's own lists and its dpkg database stay as they are.
apt_for() {
    local suite=$1 state="$CACHE/apt/$1" program=$2
    shift 2
    "$program" -q \
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/sources" \
        -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" \
        -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
}

# suite_lists SUITE: fetch the suite's package lists, once.
suite_lists() {
    local suite=$1 state="$CACHE/apt/$1"
    [ -e "$state/fetched" ] && return
    mkdir -p "$state/sources" "$state/lists/partial" "$state/cache/archives/partial"
    python3 "$HERE/apt_sources.py" "$CODENAME" "$suite" >"$state/sources/suite.sources" ||
        fail "no apt source of this machine offers $CODENAME, so $suite cannot be found"
    apt_for "$suite" apt-get update --error-on=any >"$state/log" 2>&1 ||
        fail "the package lists of $suite cannot be fetched (no network?)" "$state/log"
    touch "$state/fetched"
}

download() {
    local suite=$1 directory=$2
    shift 2
    (cd "$directory" && apt_for "$suite" apt-get download "$@") >"$CACHE/apt/$suite/log" 2>&1
}

# unpack SUITE TARGET PACKAGE[=VERSION]... [-- PATTERN...]: the packages' files under TARGET, complete or not at all, or
# those that a pattern of tar's matches, each at least one; TARGET/VERSIONS says what they are.
unpack() {
    local suite=$1 target=$2 fresh archive packages=()
    shift 2
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        packages+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    suite_lists "$suite"
    fresh=$(mktemp -d "$CACHE/unpack.XXXXXX")
    mkdir "$fresh/archives" "$fresh/root"
    download "$suite" "$fresh/archives" "${packages[@]}" || {
        # The suite may have moved on since its lists were fetched.
        rm -f "$CACHE/apt/$suite/fetched"
        suite_lists "$suite"
        download "$suite" "$fresh/archives" "${packages[@]}"
    } || fail "cannot download ${packages[*]} of $suite" "$CACHE/apt/$suite/log"
    for archive in "$fresh"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$archive" | tar -x -p -C "$fresh/root" --wildcards "$@" ||
            fail "$(basename "$archive") has not all that is wanted of it"
        dpkg-deb -W --showformat='${Package} ${Version}\n' "$archive" >>"$fresh/root/VERSIONS"
    done
    chmod 755 "$fresh/root"
    rm -rf "$target"
    mv "$fresh/root" "$target"
    rm -rf "$fresh"
}

# candidate SUITE PACKAGE PREFIX: the newest version that begins with PREFIX, or nothing.
candidate() {
    suite_lists "$1"
    apt_for "$1" apt-cache madison "$2" | awk -F' *[|] *' -v prefix="$3" 'index($2, prefix) == 1 { print $2; exit }'
}
