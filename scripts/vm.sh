#!/usr/bin/env bash
# Tests nitroproxy on real AF_VSOCK, in virtual machines that QEMU emulates; `scripts/dev.sh vm` calls it. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nitroproxy
python=$root/.venv/bin/python
cd "$root"

usage() {
    cat <<'TEXT'
usage: scripts/dev.sh vm [--seconds N] [STAGE...]

Runs the stages named, or loopback, systemd, eif and pair; soak and pair-soak only when they are named, for N seconds
[600] each. See docs/vm.md. Needs Debian 12 and root. When the four pass, tests/vm/passed is made to say for which files they did.

usage: scripts/vm.sh digest

Prints what tests/vm/passed has when they have passed with the files as they are.
TEXT
}

say() { printf '%s\n' "$*" >&2; }

die() {
    say "vm.sh: $*"
    exit 1
}

# Installs what is missing; PostgreSQL and curl are for the stage eif. As in a change to single-user mode, so that nothing
# is started that is installed.
tools() {
    local package missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    [ -d /usr/lib/postgresql ] || missing+=(postgresql)
    command -v curl >/dev/null || missing+=(curl)
    for package in "${missing[@]}"; do
        say "installing $package"
        { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
            --no-install-recommends "$package"; } >&2 || die "$package cannot be installed: nothing was tested"
    done
}

# child COMMAND...: runs it so that a signal to this script ends it at once, and not when it is done by itself.
running=''
child() {
    local status=0
    "$@" &
    running=$!
    wait "$running" || status=$?
    running=''
    return "$status"
}

stop() {
    trap '' INT TERM
    if [ -n "$running" ]; then
        kill -TERM "$running" 2>/dev/null || true
        wait "$running" || true
    fi
    exit 130
}

# What the stages show depends on these files and on nothing else here.
covered() {
    git ls-files -z --cached --others --exclude-standard -- nitroproxy twisted_plugins systemd docker etc tests/vm tests/nitro \
        'tests/test_vsock_*.py' tests/fakevsock.py scripts/vm.sh scripts/build.sh requirements-dev.lock requirements.lock setup.cfg pyproject.toml ':!tests/vm/passed'
}

# digest DIRECTORY: of the covered files' names, and of what is in them in DIRECTORY.
digest() {
    covered | LC_ALL=C sort -z | (cd "$1"; xargs -0 sha256sum 2>/dev/null || true) | sha256sum | cut -d' ' -f1
}

# The image is made anew when anything that it is made from has changed. Images of other inputs are kept for a while.
image() {
    local key
    key=$({ cat tests/vm/build_image.sh requirements-dev.lock; find tests/vm/guest -type f -exec cat {} +; } | sha256sum | cut -c1-16)
    image=$cache/image-$key
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -w 900 9 || die "another run is making an image, for too long"
    if [ ! -f "$image/root.ext4" ]; then
        say "making the guest image; this takes about a minute"
        find "$cache" -maxdepth 1 -name 'image-*' -mtime +7 -exec rm -rf {} +
        rm -rf "$image.new"
        child timeout -k 10 900 tests/vm/build_image.sh "$python" requirements-dev.lock "$image.new" ||
            die "the guest image cannot be made: nothing was tested"
        mv "$image.new" "$image"
    fi
    flock -u 9
}

# The working tree as git sees it, without what is only in the environment of whoever works here.
payload() {
    local tree=$1/tree files=$1/payload
    mkdir -p "$tree" "$files/wheel"
    git ls-files -z --cached --others --exclude-standard | tar c --null --ignore-failed-read -T - 2>/dev/null | tar x -C "$tree"
    "$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$files/wheel" "$tree" >&2
    cp -r "$tree/tests" "$tree/systemd" "$tree/docker" "$tree/etc" "$files/"
    tar cf "$1/payload.tar" -C "$files" .
    truncate -s %1M "$1/payload.tar"
}

case ${1:-} in
    help | -h | --help)
        usage
        exit
        ;;
    digest)
        digest .
        exit
        ;;
esac
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "this needs Debian and root: nothing was tested"
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/nitroproxy-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap stop INT TERM
tools
image
payload "$work"
tested=$(digest "$work/tree")
child scripts/build.sh enclave --emulator >"$work/build.log" 2>&1 || {
    tail -n 20 "$work/build.log" >&2
    die "the enclave image cannot be made: nothing was tested"
}
child "$python" -m tests.vm.boot --image "$image" --payload "$work/payload.tar" --eif build/enclave-emulator.eif --out "$root/.run/vm" "$@"
if [ $# = 0 ]; then
    printf '%s\n' "$tested" >tests/vm/passed
fi
