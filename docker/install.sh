#!/bin/sh
# Installs nitroproxy below another root, as /opt/nitroproxy, for the enclave image and the container images.
#
# usage: install.sh ROOT INTERPRETER WHEELS MACHINE PIP...
#
# ROOT/opt/nitroproxy gets a virtual environment whose Python will be INTERPRETER, a path in the finished image: CPython 3.11
# for MACHINE (x86_64 or aarch64). WHEELS is a directory with nitroproxy's wheel and those of requirements.lock, which have
# been checked against their hashes. PIP... is a pip of any Python. What docker/trim.txt lists is removed from ROOT.
set -eu

root=$1 interpreter=$2 wheels=$3 machine=$4
shift 4
here=$(dirname "$0")
prefix=$root/opt/nitroproxy
site=$prefix/lib/python3.11/site-packages
mkdir -p "$prefix/bin"

"$@" install --quiet --no-index --no-deps --no-compile --no-warn-script-location --root-user-action=ignore \
    --only-binary=:all: --implementation cp --python-version 3.11 --platform "manylinux_2_34_$machine" \
    --platform "linux_$machine" --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --target "$site" "$wheels"/*.whl
# These name the machine that built, or change with every build.
find "$site" \( -name direct_url.json -o -name REQUESTED -o -name RECORD -o -name uv_cache.json \) -delete

ln -sf "$interpreter" "$prefix/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\nversion = 3.11\n' "${interpreter%/*}" >"$prefix/pyvenv.cfg"
entry() {
    printf '#!/opt/nitroproxy/bin/python3\nimport sys\nfrom %s import %s\n\nsys.exit(%s())\n' "$2" "$3" "$3" >"$prefix/bin/$1"
    chmod 755 "$prefix/bin/$1"
}
entry twistd twisted.scripts.twistd run
entry nitroproxy nitroproxy.commands.main main

# A pattern that matches nothing any more is not an error: packages change.
sed '/^#/d; s/ .*//' "$here/trim.txt" | while read -r pattern; do
    # shellcheck disable=SC2086 # the pattern is meant to expand
    (cd "$root" && rm -rf -- $pattern)
done
find "$root" -name __pycache__ -prune -exec rm -rf {} +
