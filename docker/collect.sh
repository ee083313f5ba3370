#!/bin/sh
# In the build stage of the Dockerfile: what the images have besides their base.
#
# usage: collect.sh OUT DEMO
#
# OUT gets /opt/nitroproxy and /etc/nitroproxy/config.json, DEMO what only the demonstration needs. PYTHON is the interpreter
# of the finished image.
set -eu

out=$1 demo=$2
machine=$(uname -m)
python=$(command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "collect.sh: the build stage needs CPython 3.11" >&2
    exit 1
}
"$python" -m venv /tmp/tools
pip="/tmp/tools/bin/python -m pip"

# The lock's entries of the packages that docker/demo.txt names.
awk 'NR == FNR { if (!/^#/) wanted[$1]; next }
    /^[a-z0-9]/ { split($1, part, "=="); on = part[1] in wanted }
    on' docker/demo.txt requirements-dev.lock >/tmp/demo.lock

if [ -d wheels ]; then
    mkdir /tmp/wheels /tmp/demo-wheels
    cp wheels/*.whl /tmp/wheels/
    cp demo-wheels/*.whl /tmp/demo-wheels/
else
    $pip download --quiet --require-hashes --only-binary=:all: -r requirements.lock --dest /tmp/wheels
    $pip wheel --quiet --no-deps --wheel-dir /tmp/wheels .
    $pip download --quiet --require-hashes --no-deps --only-binary=:all: -r /tmp/demo.lock --dest /tmp/demo-wheels
fi

# shellcheck disable=SC2086,SC2153 # the words of a command; PYTHON is the Dockerfile's
docker/install.sh "$out" "$PYTHON" /tmp/wheels "$machine" $pip
mkdir -p "$out/etc/nitroproxy" "$demo"
cp etc/config.json "$out/etc/nitroproxy/config.json"
cp docker/healthy.py "$out/opt/nitroproxy/bin/healthy.py"
PYTHONPATH=$out/opt/nitroproxy/lib/python3.11/site-packages "$python" docker/finish.py "$out"

# shellcheck disable=SC2086 # the words of a command
$pip install --quiet --no-index --no-deps --no-compile --no-warn-script-location --root-user-action=ignore \
    --target "$demo/opt/nitroproxy/lib/python3.11/site-packages" /tmp/demo-wheels/*.whl
find "$demo" \( -name direct_url.json -o -name REQUESTED -o -name RECORD -o -name bin \) -prune -exec rm -rf {} +

for tree in "$out" "$demo"; do
    chmod -R u+rwX,go+rX,go-w "$tree"
    find "$tree" ! -path '*/twisted/plugins/*.py' -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
done
