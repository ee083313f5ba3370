#!/usr/bin/env bash
# Tries the example clients of docs/clients.md through the stack, as applications in the enclave do:
# scripts/dev.sh clients [NAME...] starts it. Each client has to pass three times:
#   answer       it gets the destination's answer through the proxy
#   certificate  it gets none from a destination whose certificate is for another name
#   bypass       it gets none when nothing listens at the proxy's address, so it cannot have gone past the proxy
# A client is given HTTPS_PROXY, URL and CA_FILE, and nothing else of the environment but PATH, HOME and EXAMPLES.
set -euo pipefail

# shellcheck source=scripts/dev.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/dev.sh"
examples=$root/tests/clients
tools=$root/.run/clients
seconds=60

# NAME FILE DESTINATION: what the table shows, what is run, and which of `destinations` it is sent to.
clients='
curl                curl.sh                    https
curl-path           curl_path.sh               https
curl-absolute       curl_absolute.sh           https
curl-socks          curl_socks.sh              https
wget                wget.sh                    https
openssl             openssl.sh                 https
requests            python_requests.py         https
requests-socks      python_socks.py            https
httpx               python_httpx.py            https
aiohttp             python_aiohttp.py          https
urllib              python_urllib.py           https
boto3               python_boto3.py            https
websockets-wss      python_websockets.py       wss
websockets-ws       python_websockets.py       ws
websockets-path     python_websockets_path.py  wss
undici              node_undici.mjs            https
https-proxy-agent   node_https_proxy_agent.mjs https
node-env            node_env.sh                https
go                  go_http.go                 rooted
java                java.sh                    https
'
clients=$(sed '/^$/d' <<<"$clients")

# make_venv: the Python clients' own environment, made anew when their lock has changed.
make_venv() {
    local stamp=$tools/venv/.made-from wanted
    wanted=$(sha256sum <"$examples/requirements.lock")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    say "making $tools/venv"
    rm -rf "$tools/venv"
    "$venv/bin/python" -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --require-hashes -r "$examples/requirements.lock" >&2
    printf '%s' "$wanted" >"$stamp"
}

# make_modules: the Node clients' packages; the programs go beside them, for that is where Node looks.
make_modules() {
    mkdir -p "$tools/node"
    cp "$examples"/*.mjs "$examples"/package*.json "$tools/node"
    if ! cmp -s "$examples/package-lock.json" "$tools/node/.made-from"; then
        say "making $tools/node"
        (cd "$tools/node" && npm ci --silent --ignore-scripts) >&2 || return
        cp "$examples/package-lock.json" "$tools/node/.made-from"
    fi
}

# lacking FILE: installs what the program needs, if that can be done here; prints what is missing, else nothing.
lacking() {
    case $1 in
        *.py) ;;
        curl*.sh) lacking_command curl curl ;;
        wget.sh) lacking_command wget wget ;;
        openssl.sh) lacking_command openssl openssl ;;
        go_*.go) lacking_command go golang-go ;;
        java.sh) lacking_command javac default-jdk-headless ;;
        node_env.sh)
            lacking_command node nodejs
            if command -v node >/dev/null && ! node --use-env-proxy --eval '' 2>/dev/null; then
                echo "node $(node --version) does not know NODE_USE_ENV_PROXY"
            fi
            ;;
        *.mjs)
            lacking_command node nodejs
            lacking_command npm npm
            make_modules || echo "the packages in package-lock.json cannot be installed"
            ;;
    esac
}

lacking_command() { (need "$1" "$2") >&2 || echo "there is no $1, and the Debian package $2 cannot be installed"; }

# try NAME FILE STEP PROXY URL: runs the program in a directory of its own, its output in $run/NAME.STEP.
try() {
    local name=$1 file=$2 step=$3 proxy=$4 url=$5 command directory
    case $file in
        *.sh) command=(sh "$examples/$file") ;;
        *.py) command=("$tools/venv/bin/python" "$examples/$file") ;;
        *.mjs) command=(node "$tools/node/$file") ;;
        *.go) command=(go run "$examples/$file") ;;
    esac
    directory=$(mktemp -d "$run/work.XXXXXX")
    (cd "$directory" && env -i PATH="$PATH" HOME="$HOME" EXAMPLES="$examples" HTTPS_PROXY="$proxy" URL="$url" \
        CA_FILE="$run/ca.pem" timeout "$seconds" "${command[@]}") >"$run/$name.$step" 2>&1 </dev/null
}

# judge NAME FILE DESTINATION: prints what the client got, or what is wrong with it and fails.
judge() {
    local name=$1 file=$2 destination=$3 line
    if ! try "$name" "$file" answer "$proxy" "${url[$destination]}"; then
        echo "answer: it failed: $(tail -n 1 "$run/$name.answer")"
        return 1
    fi
    if ! line=$(grep -F -m 1 "${wanted[$destination]}" "$run/$name.answer"); then
        echo "answer: it did not get '${wanted[$destination]}'"
        return 1
    fi
    if [ -n "${bad_url[$destination]}" ] && try "$name" "$file" certificate "$proxy" "${bad_url[$destination]}"; then
        echo "certificate: it accepted one for another name"
        return 1
    fi
    if try "$name" "$file" bypass "$nobody" "${url[$destination]}"; then
        echo "bypass: it got an answer without the proxy"
        return 1
    fi
    echo "$line"
}

port_in() { "$venv/bin/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$run/$1" "$2"; }

finish() {
    stop_stack
    halt echo
    # The output of a failing client is kept, with the logs.
    if [ "${failed:-1}" -eq 0 ]; then
        rm -rf "$run"
    else
        keep clients-failed
    fi
}

chosen=$clients
if [ $# -gt 0 ]; then
    chosen=
    for name in "$@"; do
        if ! line=$(grep -E "^$name " <<<"$clients"); then
            say "dev.sh clients: there is no client '$name'; there are:" "$(cut -d' ' -f1 <<<"$clients" | xargs)"
            exit 2
        fi
        chosen+=$line$'\n'
    done
fi

deps
make_venv
run=$(mktemp -d "${TMPDIR:-/tmp}/nitroproxy-clients.XXXXXX") kept=$root/.run/clients-failed
trap finish EXIT
trap 'exit 130' INT TERM
start_upstream
launch echo env PYTHONPATH="$root" "$tools/venv/bin/python" "$examples/echo.py" "$run"
wait_for echo 30 test -f "$run/echo.json"
start_daemons "$(free_port)" "$(free_port)"

read -r _ loopback <"$run/ports"
proxy=http://127.0.0.1:$loopback
nobody=http://127.0.0.1:$(free_port)
greeting=$(printf 'hello from %07d, through the enclave' $$)
path=base64/$(printf '%s' "$greeting" | base64)
# rooted: Go never uses a proxy for "localhost". "localhost." is the same name to the proxy and to Go's TLS, if not to all.
port=$(port_in upstream.json https)
declare -A url=(
    [https]=https://localhost:$port/$path
    [rooted]=https://localhost.:$port/$path
    [wss]=wss://localhost:$(port_in echo.json wss)/
    [ws]=ws://localhost:$(port_in echo.json ws)/
)
port=$(port_in upstream.json wrong_name)
declare -A bad_url=(
    [https]=https://localhost:$port/$path
    [rooted]=https://localhost.:$port/$path
    [wss]=wss://localhost:$(port_in echo.json wrong_name)/
    [ws]=""
)
declare -A wanted=([https]=$greeting [rooted]=$greeting [wss]=hello [ws]=hello)

passed=0 failed=0 skipped=0
while read -r name file destination; do
    [ -n "$name" ] || continue
    why=$(lacking "$file" | head -n 1)
    if [ -n "$why" ]; then
        result="skipped: $why"
        skipped=$((skipped + 1))
    elif got=$(judge "$name" "$file" "$destination"); then
        result="pass     $got"
        passed=$((passed + 1))
    else
        result="FAIL     $got"
        failed=$((failed + 1))
    fi
    printf '%-18s %s\n' "$name" "$result"
done <<<"$chosen"
echo "clients: $passed passed, $failed failed, $skipped skipped"
if [ "$failed" -gt 0 ]; then
    say "their output, and the logs: $kept"
    exit 1
fi
