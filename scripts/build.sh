#!/usr/bin/env bash
# Builds the enclave image, the container images, and what is deployed to an instance. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
cache=$build/cache
# The compiled wheel that --compiled names, which images then get instead of the pure one.
compiled=''
# Later than 0, which docker/finish.py gives to Twisted's plugins: their cache must be newer than they are.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1} PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
cd "$root"
# shellcheck source=scripts/artifacts.sh
source "$root/scripts/artifacts.sh"

usage() {
    cat <<'TEXT'
usage: scripts/build.sh [COMMAND [OPTION...]]

  build      enclave, and docker when buildah, podman or docker is there; without a command, too
  docker     make the container images nitroproxy-enclave, nitroproxy-host and nitroproxy-demo
  enclave    make build/enclave-emulator.eif, or with Nitro's boot files build/enclave.eif; build/measurements.json and
             build/policy.json beside it
  artifacts  make build/nitroproxy-VERSION: what deploy.sh takes to an instance, the enclave image and all that the host
             needs; build/deploy.sh leads to it
  base       make the small Debian root anew that enclave uses, with today's packages
  clean      remove build/
  help       this text

Options of enclave:
  --application DIR   copy DIR to /app in the image
  --config FILE       the enclave's configuration [etc/config.json]
  --from IMAGE|DIR|TAR
                      take this root file system as it is, instead of making the small one: an image of a container engine
                      that was built on nitroproxy-enclave, a directory, or an archive (tar, OCI, docker save)
  --blobs DIR         Nitro's boot files, as the package aws-nitro-enclaves-cli-devel has them
                      [/usr/share/nitro_enclaves/blobs, if it is there]
  --kernel FILE, --boot DIR, --cmdline FILE
                      a kernel, a boot ramdisk's tree, a command line of your own in the place of the blobs'
  --emulator          make the emulator's image although Nitro's boot files are there
  --with-nitro-cli    have nitro-cli build-enclave make build/enclave.eif, from the Docker image that --from names
  --role ARN, --instance ID, --public
                      on which instances policy.json accepts the image; fill in the file without one
  --compiled WHEEL#sha256=DIGEST
                      install this compiled wheel of nitroproxy (docs/performance.md says how one is made) instead of the pure
                      one; for docker, too
  -- COMMAND...       the application, started when the proxy listens [none: the enclave is a proxy for its host]; an image
                      or archive that --from names has its own

enclave without --from needs Debian or Ubuntu, and root. The same files and packages give the same bytes.

TEXT
    artifacts_usage
}

say() { printf '%s\n' "$*" >&2; }

die() {
    say "build.sh: $*"
    exit 1
}

wrong() {
    say "build.sh: $*"
    say "'scripts/build.sh help' lists commands and options"
    exit 2
}

# need PACKAGE COMMAND...: installs the Debian package when one of the commands is missing.
need() {
    local package=$1 name
    shift
    for name in "$@"; do
        command -v "$name" >/dev/null && continue
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            die "$name is needed; install it (Debian: $package)"
        fi
        say "installing $package"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
            --no-install-recommends "$package"; } >&2 || die "$package cannot be installed"
        return
    done
}

find_python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "Python 3.11 or later is needed"
}

# One build at a time: two would remove each other's files.
lock() {
    mkdir -p "$cache"
    [ -z "${locked:-}" ] || return 0
    locked=yes
    exec 9>"$cache/lock"
    flock -n 9 || die "another build is running in $build"
}

# made PATH TEXT COMMAND...: runs COMMAND PATH.new and renames the result, unless PATH was made from the same TEXT.
made() {
    local path=$1 key
    key=$(printf '%s' "$2" | sha256sum)
    shift 2
    [ -e "$path" ] && [ "$(cat "$path.key" 2>/dev/null)" = "$key" ] && return
    rm -rf "$path" "$path.new" "$path.key"
    "$@" "$path.new" || die "${path#"$root/"} cannot be made"
    mv "$path.new" "$path"
    printf '%s' "$key" >"$path.key"
}

content() { find "$@" -type f ! -name '*.py[co]' -print0 | sort -z | xargs -0 sha256sum; }

# The environment that builds: the library behind "nitroproxy image" needs two of the locked packages.
make_tools() {
    say "making an environment for the build"
    "$(find_python)" -m venv "$1"
    "$1/bin/pip" install --quiet --require-hashes -r requirements.lock >&2
    # A venv knows its own path only by its scripts, which are not used: "python -m" works after the rename.
}

tools() {
    made "$cache/tools" "$(cat requirements.lock)" make_tools
    python=$cache/tools/bin/python
}

image() { PYTHONPATH=$root "$python" -m nitroproxy.commands.image "$@"; }

machine() { case $(uname -m) in x86_64 | aarch64) uname -m ;; *) die "there are no enclaves on $(uname -m)" ;; esac; }

# What the image installs, for its Python and machine and not for those that build.
make_wheels() {
    say "downloading the locked packages"
    download "$1" 3.11 "$(machine)"
}

# take_compiled WHEEL#sha256=DIGEST: sets compiled to the wheel, which is for the image's Python and machine, of this version,
# and the one that was meant.
take_compiled() {
    local wheel=${1%%#*} digest=${1##*#sha256=} name found
    [ "$wheel#sha256=$digest" = "$1" ] || wrong "--compiled: expected WHEEL#sha256=DIGEST, got '$1'"
    [ -f "$wheel" ] || die "--compiled $wheel: no such file"
    name=nitroproxy-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' nitroproxy/__init__.py)-cp311-cp311
    case ${wheel##*/} in
        "$name"-*linux*_"$(machine)".whl) ;;
        *) die "--compiled ${wheel##*/}: the image needs $name-linux_$(machine).whl" ;;
    esac
    found=$(sha256sum "$wheel" | cut -d ' ' -f 1)
    [ "$found" = "$digest" ] || die "--compiled ${wheel##*/}: its SHA-256 is $found, not $digest"
    compiled=$wheel
}

# The wheel of this tree, from a copy, so that setuptools leaves nothing in it.
make_own_wheel() {
    local copy=$cache/source
    rm -rf "$copy"
    mkdir -p "$copy"
    cp -r setup.cfg setup.py pyproject.toml MANIFEST.in LICENSE README.md nitroproxy twisted_plugins etc docs systemd "$copy/"
    find "$copy" -name __pycache__ -prune -exec rm -rf {} +
    find "$copy" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    env -u NITROPROXY_COMPILED "$python" -m pip wheel --quiet --no-deps --wheel-dir "$1" "$copy" >&2
    rm -rf "$copy"
}

wheels() {
    made "$cache/wheels" "$(machine) $(cat requirements.lock)" make_wheels
    made "$cache/own" "$(content setup.cfg setup.py pyproject.toml nitroproxy twisted_plugins etc)" make_own_wheel
    own=${compiled:-$(echo "$cache"/own/*.whl)}
}

needs_debian() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "making the small root needs Debian or Ubuntu, and root; elsewhere build with a container engine and --from"
    fi
    need mmdebstrap mmdebstrap
}

# The mirror that apt uses here, or DEBIAN_MIRROR.
mirror() {
    local found
    # shellcheck disable=SC2016  # apt-get's own variable.
    found=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort -u | head -n 1)}
    [ -n "$found" ] || die "apt has no mirror configured: set DEBIAN_MIRROR to the URL of one"
    printf '%s' "$found"
}

# debian VARIANT SUITE DIRECTORY PACKAGE...: a root of the suite's packages and all that they depend on. With the variant
# extract they are not configured.
debian() {
    local variant=$1 suite=$2 directory=$3
    shift 3
    mmdebstrap --quiet --mode=root --variant="$variant" --include="$(printf '%s,' "$@")" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        "$suite" "$directory" "deb $(mirror) $suite main" >&2
}

make_base() {
    say "making the small root from Debian 12 packages"
    local packages directory=$1
    mapfile -t packages < <(grep -v '^#' docker/packages.txt)
    debian extract bookworm "$directory" "${packages[@]}"
    (cd "$directory" && rm -rf var run tmp boot home media mnt opt root srv dev proc sys)
    mkdir -p "$directory"/{dev,proc,root,run,sys,tmp,var,etc,opt}
    chmod 700 "$directory/root"
    chmod 1777 "$directory/tmp"
    ln -sf python3.11 "$directory/usr/bin/python3"
    printf '%s\n' root:x:0:0:root:/root:/usr/sbin/nologin nitroproxy:x:65532:65532::/:/usr/sbin/nologin \
        application:x:65533:65533::/:/usr/sbin/nologin nobody:x:65534:65534::/:/usr/sbin/nologin >"$directory/etc/passwd"
    printf '%s\n' root:x:0: nitroproxy:x:65532: application:x:65533: nogroup:x:65534: >"$directory/etc/group"
    printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >"$directory/etc/hosts"
    printf '%s\n' 'hosts: files dns' >"$directory/etc/nsswitch.conf"
    rm -f "$directory"/etc/{passwd-,group-,hostname,resolv.conf,ld.so.cache}
    ldconfig -r "$directory" -X
}

base() {
    needs_debian
    made "$cache/base" "$(machine) $(cat docker/packages.txt)" make_base
}

# make_root DIRECTORY: the small base, nitroproxy, its configuration and the application. The chroots show that the root
# works by itself: whatever was trimmed too much shows here and not in the enclave.
make_root() {
    local directory=$1
    say "installing nitroproxy into the root"
    cp -a "$cache/base" "$directory"
    rm -rf "$cache/install"
    mkdir -p "$cache/install" "$directory/etc/nitroproxy"
    cp "$cache"/wheels/*.whl "$own" "$cache/install/"
    docker/install.sh "$directory" /usr/bin/python3.11 "$cache/install" "$(machine)" "$python" -m pip >&2
    rm -rf "$cache/install"
    install -m 644 "$config" "$directory/etc/nitroproxy/config.json"
    [ -z "$application" ] || cp -rL "$application" "$directory/app"
    chroot "$directory" /opt/nitroproxy/bin/python3 - / <docker/finish.py >&2
    chroot "$directory" /opt/nitroproxy/bin/twistd nitroproxy-enclave --check-config >&2
    chmod -R u+rwX,go+rX,go-w "$directory"
    chmod 1777 "$directory/tmp"
}

# The emulator's kernel, from Debian 13: the first with the Nitro Security Module's driver.
make_emulator() {
    say "fetching the emulator's kernel"
    local directory=$1 files=$cache/kernel module
    rm -rf "$files"
    debian extract trixie "$files" linux-image-cloud-amd64 busybox-static
    mkdir -p "$directory"/boot/{bin,dev,modules,proc,rootfs,sys}
    cp "$files"/boot/vmlinuz-* "$directory/kernel"
    install -m 755 "$files/usr/bin/busybox" "$directory/boot/bin/busybox"
    install -m 755 docker/emulator/init "$directory/boot/init"
    install -m 644 docker/emulator/heartbeat.py "$directory/boot/heartbeat.py"
    # What Nitro's kernel has built in: vsock, and netfilter's NAT without nf_tables. Each after those that it needs.
    for module in virtio_mmio vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport nsm x_tables ip_tables \
        nf_defrag_ipv6 libcrc32c nf_defrag_ipv4 nf_conntrack nf_nat iptable_nat ip6_tables ip6table_nat xt_REDIRECT; do
        find "$files/usr/lib/modules" -name "$module.ko.xz" -exec xz -dc {} + >"$directory/boot/modules/$module.ko"
        [ -s "$directory/boot/modules/$module.ko" ] || die "Debian's kernel has no module $module"
        printf '%s\n' "$module" >>"$directory/boot/modules/order"
    done
    rm -rf "$files"
}

emulator() {
    [ "$(machine)" = x86_64 ] || die "the emulator is for x86_64; give Nitro's boot files with --blobs"
    need xz-utils xz
    needs_debian
    made "$cache/emulator" "$(declare -f make_emulator; cat docker/emulator/*)" make_emulator
}

# saved IMAGE: an archive of a container engine's image.
make_saved() {
    local engine
    for engine in podman docker; do
        if engine_works "$engine" && "$engine" image inspect "$1" >/dev/null 2>&1; then
            "$engine" save --output "$2" "$1" >&2
            return
        fi
    done
    engine_works buildah && buildah push --quiet "$1" "oci-archive:$2" >&2
}

engine_works() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

cmd_enclave() {
    local application='' config=etc/config.json from='' blobs='' kernel='' boot='' cmdline='' emulated='' nitro='' policy=()
    local command=()
    while [ $# -gt 0 ]; do
        case $1 in
            --application | --config | --from | --blobs | --kernel | --boot | --cmdline | --compiled | --role | --instance) [ $# -ge 2 ] || wrong "$1 needs a value" ;;&
            --application) application=$2 ;;
            --config) config=$2 ;;
            --from) from=$2 ;;
            --blobs) blobs=$2 ;;
            --kernel) kernel=$2 ;;
            --boot) boot=$2 ;;
            --cmdline) cmdline=$2 ;;
            --compiled) take_compiled "$2" ;;
            --role | --instance) policy=("$1" "$2") ;;
            --public) policy=(--public) && set -- - "$@" ;;
            --emulator) emulated=yes && set -- - "$@" ;;
            --with-nitro-cli) nitro=yes && set -- - "$@" ;;
            --)
                shift
                command=("$@")
                break
                ;;
            *) wrong "unknown option '$1'" ;;
        esac
        shift 2
    done
    [ -f "$config" ] || die "$config: no such file"
    [ -z "$application" ] || [ -d "$application" ] || die "$application: no such directory"
    [ -z "$from" ] || [ -z "$compiled" ] || wrong "--from takes the root as it is; build its nitroproxy with --compiled"
    [ -z "$from" ] || [ -z "$application" ] || wrong "--from takes the root as it is; put the application into it"
    [ -z "$nitro" ] || [ -n "$from" ] || wrong "--with-nitro-cli makes an image of the Docker image that --from names"
    [ -z "$nitro" ] || [ -z "$blobs$kernel$boot$cmdline$emulated$application${command[*]}" ] ||
        wrong "--with-nitro-cli takes boot files, command and application as nitro-cli and the Docker image have them"
    lock
    tools
    if [ -n "$nitro" ]; then
        with_nitro_cli
        return
    fi
    local source=$build/root arguments=()
    trap 'rm -rf "$build/root" "$cache"/*.new' EXIT
    root_of "$from"
    boot_of
    local word
    for word in "${command[@]}"; do arguments+=("--command=$word"); done
    mkdir -p "$build"
    image build --root "$source" --output "$eif" "${arguments[@]}" --measurements "$build/measurements.json" \
        --policy "$build/policy.json" "${policy[@]}"
}

# nitro-cli empties its output before it begins: beside the image, then renamed.
with_nitro_cli() {
    command -v nitro-cli >/dev/null || die "there is no nitro-cli: dnf install aws-nitro-enclaves-cli aws-nitro-enclaves-cli-devel"
    eif=$build/enclave.eif
    trap 'rm -f "$build/enclave.eif.new"' EXIT
    nitro-cli build-enclave --docker-uri "$from" --output-file "$eif.new" >&2 || die "nitro-cli build-enclave failed"
    image measure "$eif.new" --measurements "$build/measurements.json" --policy "$build/policy.json" "${policy[@]}"
    mv "$eif.new" "$eif"
}

# Sets source, and the entry point in arguments, where the root does not say it.
root_of() {
    local entry=(/opt/nitroproxy/bin/nitroproxy enclave-init) word
    if [ -z "$1" ]; then
        base
        wheels
        rm -rf "$build/root"
        make_root "$build/root"
    elif [ -d "$1" ]; then
        source=$1
    elif [ ${#command[@]} -gt 0 ]; then
        wrong "--from starts what the image says; set its CMD instead of giving a command"
    elif [ -f "$1" ]; then
        source=$1 entry=()
    else
        source=$cache/saved.tar entry=()
        rm -f "$source"
        make_saved "$1" "$source" || die "--from $1: no such file, and no container engine here has an image of this name"
    fi
    for word in "${entry[@]}"; do arguments+=("--command=$word"); done
    [ ${#entry[@]} = 0 ] || arguments+=("--env=PATH=/opt/nitroproxy/bin:/usr/local/bin:/usr/bin:/bin" "--env=LANG=C.UTF-8")
}

# Sets eif, and what boots the root in arguments.
boot_of() {
    local standard=/usr/share/nitro_enclaves/blobs
    [ -z "$kernel" ] || arguments+=(--kernel "$kernel")
    [ -z "$boot" ] || arguments+=(--boot "$boot")
    [ -z "$cmdline" ] || arguments+=(--cmdline "$cmdline")
    [ -n "$blobs" ] || [ ! -d "$standard" ] || [ -n "$emulated" ] || blobs=$standard
    if [ -n "$blobs" ]; then
        eif=$build/enclave.eif
        arguments+=(--blobs "$blobs")
    elif [ -n "$kernel$boot$cmdline" ]; then
        eif=$build/enclave.eif
    else
        emulator
        eif=$build/enclave-emulator.eif
        arguments+=(--emulator --kernel "$cache/emulator/kernel" --boot "$cache/emulator/boot" --cmdline docker/emulator/cmdline)
    fi
}

# The image of the Dockerfile's build stage, where there is no registry: Debian with pip.
make_build_base() { debian minbase bookworm "$1" python3 python3-venv; }

make_demo_wheels() {
    awk 'NR == FNR { if (!/^#/) wanted[$1]; next }
        /^[a-z0-9]/ { split($1, part, "=="); on = part[1] in wanted }
        on' docker/demo.txt requirements-dev.lock >"$cache/demo.lock"
    "$python" -m pip download --quiet --require-hashes --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.11 --platform "manylinux_2_28_$(machine)" --platform "manylinux_2_17_$(machine)" \
        --platform "manylinux2014_$(machine)" -r "$cache/demo.lock" --dest "$1" >&2
}

# What the Dockerfile copies, with wheels that have been checked.
make_context() {
    mkdir -p "$1/wheels" "$1/demo-wheels"
    cp -r docker etc requirements.lock requirements-dev.lock "$1/"
    cp "$cache"/wheels/*.whl "$own" "$1/wheels/"
    cp "$cache"/demo-wheels/*.whl "$1/demo-wheels/"
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# import NAME DIRECTORY: an image of the local engine from a root file system.
import_base() {
    local container archive=$cache/import.tar
    say "importing $1"
    tar c --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -f "$archive" -C "$2" .
    if [ "$engine" = buildah ]; then
        container=$(buildah from scratch)
        buildah add --quiet "$container" "$archive" / >/dev/null
        buildah commit --quiet --timestamp "$SOURCE_DATE_EPOCH" --rm "$container" "$1" >&2
    else
        "$engine" import "$archive" "$1" >&2
    fi
    rm -f "$archive"
}

find_engine() {
    for engine in buildah podman docker; do
        if engine_works "$engine"; then return; fi
    done
    engine=''
    return 1
}

cmd_docker() {
    local target arguments
    if [ "${1:-}" = --compiled ] && [ $# = 2 ]; then
        take_compiled "$2"
    elif [ $# -gt 0 ]; then
        wrong "docker takes no option but --compiled WHEEL#sha256=DIGEST"
    fi
    arguments=(--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH")
    find_engine || die "docker needs buildah, podman or a docker that reaches its engine; on Debian: apt install buildah"
    lock
    tools
    wheels
    made "$cache/demo-wheels" "$(machine) $(cat docker/demo.txt requirements-dev.lock)" make_demo_wheels
    rm -rf "$cache/context"
    make_context "$cache/context"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        base
        made "$cache/build-base" "$(machine)" make_build_base
        import_base localhost/nitroproxy-base "$cache/base"
        import_base localhost/nitroproxy-build-base "$cache/build-base"
        arguments+=(--build-arg BASE=localhost/nitroproxy-base --build-arg PYTHON=/usr/bin/python3.11
            --build-arg BUILD_BASE=localhost/nitroproxy-build-base)
    fi
    # Docker's image format would keep the health check, and put a random name into every image: compose.yaml has the
    # check too, and the same files give the same image ids.
    case $engine in
        buildah) arguments+=(--format oci --isolation chroot --timestamp "$SOURCE_DATE_EPOCH") ;;
        podman) arguments+=(--format oci --timestamp "$SOURCE_DATE_EPOCH") ;;
    esac
    for target in enclave host demo; do
        say "building nitroproxy-$target"
        "$engine" build --quiet "${arguments[@]}" --target "$target" --tag "nitroproxy-$target" \
            --file "$cache/context/docker/Dockerfile" "$cache/context"
    done
}

# Without a container engine the enclave image is all that can be made.
cmd_build() {
    cmd_enclave
    if find_engine; then
        cmd_docker "$@"
    else
        say "no container images: there is no buildah, podman or docker"
    fi
}

cmd_base() {
    lock
    rm -f "$cache/base.key"
    base
}

# An editable installation of setuptools has its links in build/ too.
cmd_clean() {
    lock
    find "$build" -mindepth 1 -maxdepth 1 ! -name '__editable__*' -exec rm -rf {} +
}

# Another script may use the functions.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

verb=${1:-build}
[ $# -gt 0 ] && shift
case $verb in
    enclave | artifacts | docker) "cmd_$verb" "$@" ;;
    build | base | clean)
        [ $# = 0 ] || wrong "$verb takes no options"
        "cmd_$verb"
        ;;
    help | -h | --help) usage ;;
    *) wrong "unknown command '$verb'" ;;
esac
