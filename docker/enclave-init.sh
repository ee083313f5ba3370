#!/usr/bin/env bash
# The enclave's entry point: brings up the loopback, starts the proxy, and then the application given to it.
#
# usage: enclave-init.sh [COMMAND [ARGUMENT...]]
#
# The application finds the proxy in HTTPS_PROXY; set it if enclave.proxy_port is not the default. When the application
# ends, so does this script, with its status; when the proxy ends, it is started again. Without an application the
# enclave is a proxy for its host.
set -euo pipefail

export PATH=/opt/nitroproxy/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
export HTTPS_PROXY=${HTTPS_PROXY:-http://127.0.0.1:8080}
export https_proxy=$HTTPS_PROXY
proxy='' application='' stopping=''

say() { printf 'enclave-init: %s\n' "$*" >&2; }

# An enclave starts with its loopback down, and its image need not have iproute2. The number is SIOCSIFFLAGS.
loopback_up() {
    ip link set lo up 2>/dev/null || python3 -c '
import fcntl, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))'
}

start_proxy() {
    twistd -n --pidfile= --reactor=nitroproxy nitroproxy-enclave &
    proxy=$!
}

listening() { true <>"/dev/tcp/$1/$2"; } 2>/dev/null

# The application must not be told that there is no proxy, only because it was faster.
await_proxy() {
    local host port
    IFS=: read -r host port <<<"${HTTPS_PROXY#http://}"
    for _ in {1..300}; do
        listening "$host" "${port%/}" && return
        if ! kill -0 "$proxy" 2>/dev/null; then
            say "the proxy does not start"
            return 1
        fi
        sleep 0.2
    done
    say "nobody listens at $HTTPS_PROXY after 60 s"
    return 1
}

stop() {
    stopping=yes
    kill -TERM "${application:-$proxy}" 2>/dev/null || true
}

# Stops the proxy, which finishes what is under way, and ends.
finish() {
    kill -TERM "$proxy" 2>/dev/null || true
    wait "$proxy" || true
    exit "$1"
}

trap stop TERM INT
loopback_up
start_proxy
await_proxy || finish 1
if [ $# -gt 0 ]; then
    "$@" &
    application=$!
fi
while true; do
    status=0
    wait -n -p ended ${application:+"$application"} "$proxy" || status=$?
    case ${ended:-} in
        '') ;; # a signal came
        "$application")
            say "the application has ended with $status"
            finish "$status"
            ;;
        *)
            [ -n "$stopping" ] && [ -z "$application" ] && exit "$status"
            say "the proxy has ended with $status; starting it again"
            sleep 1
            start_proxy
            ;;
    esac
done
