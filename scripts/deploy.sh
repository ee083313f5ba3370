#!/usr/bin/env bash
# Deploys nitroproxy and its enclave to this instance: see deploy.sh --help and docs/first-enclave.md.
#
# It finds a Python and the artifacts; everything else is nitroproxy.deploy, which runs from the wheel with the standard
# library alone.
set -euo pipefail

fail() {
    printf 'deploy.sh: %s\n' "$2" >&2
    exit "$1"
}

# scp -r has followed the link build/deploy.sh: then the artifacts are beside it.
find_artifacts() {
    local here newest
    here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
    if [ ! -d "$here/wheels" ]; then
        newest=$(find "$here" -mindepth 2 -maxdepth 2 -path "$here/nitroproxy-*/wheels" | sort -V | tail -n 1)
        [ -n "$newest" ] || fail 5 "$here has no artifacts; scripts/build.sh artifacts makes them, in build/nitroproxy-VERSION"
        here=${newest%/wheels}
    fi
    printf '%s' "$here"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail 3 "Python 3.11 or later is needed, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>/dev/null || echo 'not there'):
dnf install python3.11 (Amazon Linux 2023), apt install python3.11 (Debian 12, Ubuntu 22.04); or name one by PYTHON=/path/to/python"
}

# run DIRECTORY|WHEEL ARGUMENT...: nitroproxy.deploy from there.
run() {
    exec "$python" -I -S -B -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from nitroproxy.deploy.main import main
sys.exit(main(sys.argv[1:]))' "$@"
}

# A checkout has no artifacts, and the help all the same.
checkout=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..
if [[ ${1:-} =~ ^(-h|--help)$ && -d $checkout/nitroproxy/deploy ]]; then
    python=$(find_python)
    run "$checkout" --help
fi

artifacts=$(find_artifacts)
python=$(find_python)
wheels=("$artifacts"/wheels/nitroproxy-*-py3-none-any.whl)
[ -f "${wheels[0]}" ] || fail 5 "$artifacts/wheels has no wheel of nitroproxy; copy the artifacts again"
(cd "$artifacts" && grep '  wheels/nitroproxy-' SHA256SUMS 2>/dev/null | sha256sum --check --status) ||
    fail 5 "${wheels[0]}: differs from its digest in SHA256SUMS; copy the artifacts again"
run "${wheels[0]}" --artifacts "$artifacts" "$@"
