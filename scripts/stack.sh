# shellcheck shell=bash disable=SC2154
# The stack on one machine over UNIX sockets: the upstream, the enclave daemon and the host daemon, in the background.
# dev.sh sources it, and with it tests/clients/run.sh. They set $root; $venv; $run, the directory of the pids and logs;
# and $kept, where that directory is when the script has ended.

# A process is known by its pid and its start time, so that a recycled pid is not taken for it. A zombie has none.
start_time() { awk '{ sub(/^.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }

alive() {
    local pid started
    [ -f "$run/$1.pid" ] || return 1
    read -r pid started <"$run/$1.pid"
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}

pid_of() { cut -d' ' -f1 "$run/$1.pid"; }

# launch NAME COMMAND...: runs in the background, its output in $run/NAME.log; the log of the run before is NAME.log.1.
# It must not keep the locks of this script (8 and 9).
launch() {
    local name=$1 pid
    shift
    [ ! -f "$run/$name.log" ] || mv "$run/$name.log" "$run/$name.log.1"
    setsid "$@" >"$run/$name.log" 2>&1 </dev/null 8>&- 9>&- &
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

# give_up NAME WHAT: ends the script with what happened to NAME, and the last lines of its log that are no routine ones.
give_up() {
    { grep -vE '^[0-9]{4}-[0-9T:.-]+Z (info|debug) ' "$run/$1.log" || true; } | tail -n 5 | sed "s/^/  $1: /" >&2
    die "$1 $2; its log is ${kept:-$run}/$1.log"
}

# watch NAME...: ends the script, with why, if one of these has ended. They are children of this shell.
watch() {
    local name status
    for name in "$@"; do
        if ! alive "$name"; then
            status=0
            wait "$(pid_of "$name")" 2>/dev/null || status=$?
            give_up "$name" "ended with status $status"
        fi
    done
}

# wait_for NAME SECONDS COMMAND...: until the command succeeds; ends the script when NAME or one of $started ends, or when
# time runs out.
started=()
wait_for() {
    local name=$1 tries=$(($2 * 10))
    shift 2
    for _ in $(seq "$tries"); do
        watch "$name" "${started[@]}"
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    give_up "$name" "is not ready in time"
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

ports() { "$venv/bin/python" "$root/scripts/ports.py" "$@"; }

free_port() { ports free; }

# serves NAME PORT URL: whether NAME itself listens on PORT, where another program could answer, and answers 200.
serves() { ports owner "$2" | grep -qx "$(pid_of "$1")" && get "$3"; }

# try_port VARIABLE PORT: ends the script if PORT cannot be listened on, naming who has it and the variable to set.
try_port() {
    local why
    why=$(ports check "$2" 2>&1) || die "port $2: $why; set $1 to another port"
}

start_upstream() {
    mkdir -p "$run"
    chmod 700 "$run"
    rm -f "$run/upstream.json"
    launch upstream "$venv/bin/python" -m nitroproxy.demo.upstream --directory "$run"
    started=(upstream)
    wait_for upstream 30 test -f "$run/upstream.json"
}

# Sets $sockets, the directory of the UNIX sockets: in $run, or where their paths would be too long (107 bytes at most, of
# which /sockets/enclave/4294967294.sock is 32) in /tmp, until stop_stack removes it.
make_sockets_directory() {
    local LC_ALL=C
    sockets=$run/sockets
    if [ ${#run} -gt 75 ]; then
        sockets=$(mktemp -d /tmp/nitroproxy-sockets.XXXXXX)
        printf '%s\n' "$sockets" >"$run/sockets-elsewhere"
    fi
}

# start_daemons GATEWAY LOOPBACK: on these ports; they trust the CAs in $run/ca.pem.
start_daemons() {
    local gateway=$1 loopback=$2 sockets
    printf '%s %s\n' "$gateway" "$loopback" >"$run/ports"
    make_sockets_directory
    export NITROPROXY_TRANSPORT_DIRECTORY=$sockets NITROPROXY_TLS_CA_FILE=$run/ca.pem
    export HOST_PROXY_PORT=$gateway NITROPROXY_ENCLAVE_PROXY_PORT=$loopback
    launch enclave "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-enclave --config etc/local.json
    launch host-proxy "$venv/bin/twistd" -n --pidfile= --reactor=nitroproxy nitroproxy-host --config etc/local.json
    started+=(enclave host-proxy)
    wait_for enclave 20 serves enclave "$loopback" "http://127.0.0.1:$loopback/health"
    wait_for host-proxy 20 serves host-proxy "$gateway" "http://127.0.0.1:$gateway/health/ready"
}

stop_stack() {
    local name
    # The enclave first: its idle tunnels would hold up the relay's drain.
    for name in enclave host-proxy upstream; do
        halt "$name"
    done
    if [ -f "$run/sockets-elsewhere" ]; then
        rm -rf "$(cat "$run/sockets-elsewhere")" "$run/sockets-elsewhere"
    fi
}

# keep NAME: puts the logs and reports of a temporary $run into .run/NAME, in the place of those of the run before, and
# removes $run.
keep() {
    rm -rf "$run/sockets" "$run"/work.* "$run"/*.pid
    mkdir -p "$root/.run"
    exec 8>>"$root/.run/lock"
    flock -w 60 8
    rm -rf "$root/.run/$1"
    mv -T "$run" "$root/.run/$1"
}

upstream_url() {
    "$venv/bin/python" -c 'import json, sys; print("https://localhost:%d" % json.load(open(sys.argv[1]))["https"])' "$run/upstream.json"
}
