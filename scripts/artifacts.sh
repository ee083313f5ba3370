#!/usr/bin/env bash
# What scripts/build.sh artifacts makes; sourced by it. Uses its variables: root, build, cache, python, config, eif.
# shellcheck disable=SC2154

artifacts_usage() {
    cat <<'TEXT'
Options of artifacts, besides those of enclave:
  --python 3.11,3.12,3.13
                      the Pythons of the instances [3.11,3.12,3.13]
  --machine x86_64,aarch64
                      their machines [x86_64,aarch64]
  --eif FILE          take this image instead of building one
  --no-enclave        without an image: deploy.sh is given one by --eif
  --images            with the container images, for which a container engine is needed
TEXT
}

# download PATH PYTHON MACHINE: the locked wheels for one Python and machine, checked against their hashes.
download() {
    local arguments=(--only-binary=:all: --implementation cp --python-version "$2") tag
    for tag in 2_17 2_28 2_34; do arguments+=(--platform "manylinux_${tag}_$3"); done
    "$python" -m pip download --quiet --require-hashes -r "$root/requirements.lock" "${arguments[@]}" \
        --platform "manylinux2014_$3" --dest "$1" >&2
}

# make_wheelhouse PATH: the wheels for every Python of $pythons on every machine of $machines.
make_wheelhouse() {
    local one machine
    mkdir -p "$1"
    for machine in ${machines//,/ }; do
        for one in ${pythons//,/ }; do
            say "downloading the locked packages for Python $one on $machine"
            download "$1" "$one" "$machine"
        done
    done
}

# make_artifacts DIRECTORY: everything in its place, and the digests.
make_artifacts() {
    local directory=$1 name sums
    mkdir -p "$directory"/{wheels,etc,systemd}
    cp "$cache"/wheelhouse/*.whl "$cache"/own/*.whl "$directory/wheels/"
    cp "$root/requirements.lock" "$directory/"
    cp "$root"/etc/{nitroproxy.env,nitroproxy.schema.json} "$directory/etc/"
    cp "$config" "$directory/etc/config.json"
    cp "$root"/systemd/* "$directory/systemd/"
    [ ! -d "$root/etc/monitoring" ] || cp -r "$root/etc/monitoring" "$directory/monitoring"
    [ ! -d "$cache/images" ] || cp -r "$cache/images" "$directory/images"
    if [ -n "$eif" ]; then
        cp "$eif" "$directory/"
        for name in measurements.json policy.json; do cp "$build/$name" "$directory/"; done
    fi
    install -m 755 "$root/scripts/deploy.sh" "$directory/deploy.sh"
    "$python" "$root/scripts/sbom.py" "$version" "$root/requirements.lock" >"$directory/sbom.cdx.json"
    artifacts_readme >"$directory/README"
    chmod -R u+rwX,go+rX,go-w "$directory"
    find "$directory" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    sums=$(cd "$directory" && find . -type f -printf '%P\0' | sort -z | xargs -0 sha256sum)
    printf '%s\n' "$sums" >"$directory/SHA256SUMS"
    chmod 644 "$directory/SHA256SUMS"
    touch -d "@$SOURCE_DATE_EPOCH" "$directory/SHA256SUMS" "$directory"
}

artifacts_readme() {
    cat <<TEXT
nitroproxy $version, for the parent instance of a Nitro Enclave.

    sudo ./deploy.sh --dry-run      check this instance, change nothing
    sudo ./deploy.sh                deploy, or upgrade
    sudo ./deploy.sh --rollback     go back to the version before
    sudo ./deploy.sh --uninstall    remove it
    ./deploy.sh --help              the options and exit statuses

Nothing is downloaded. wheels/ has what the host runs, for Python $pythons on $machines; sbom.cdx.json lists it.
TEXT
    if [ -z "$eif" ]; then
        echo 'There is no enclave image here: name one by deploy.sh --eif FILE.'
    elif [ "${eif##*/}" = enclave.eif ]; then
        echo 'enclave.eif is the enclave, measurements.json has its PCRs, policy.json is what clients verify it with.'
    else
        echo 'enclave-emulator.eif runs in the emulator only: it was built without the boot files of Nitro.'
    fi
}

cmd_artifacts() {
    local pythons=3.11,3.12,3.13 machines=x86_64,aarch64 given='' images='' enclave=yes version eif='' config=etc/config.json
    local arguments=() before
    while [ $# -gt 0 ]; do
        case $1 in
            --python | --machine | --eif | --config) [ $# -ge 2 ] || wrong "$1 needs a value" ;;&
            --python) pythons=$2 && shift ;;
            --machine) machines=$2 && shift ;;
            --eif) given=$2 enclave='' && shift ;;
            --config) config=$2 && shift ;;
            --no-enclave) enclave='' ;;
            --images) images=yes ;;
            --)
                arguments+=("$@")
                break
                ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    [[ $pythons =~ ^3\.[0-9]+(,3\.[0-9]+)*$ ]] || wrong "--python: expected versions such as 3.11,3.12, got '$pythons'"
    [[ $machines =~ ^(x86_64|aarch64)(,(x86_64|aarch64))*$ ]] || wrong "--machine: expected x86_64,aarch64, got '$machines'"
    [ -z "$given" ] || [ -f "$given" ] || die "$given: no such file"
    [ -f "$config" ] || die "$config: no such file"
    [ -n "$enclave" ] || [ "${#arguments[@]}" = 0 ] || wrong "${arguments[*]}: only for an image that is built here"
    if [ -n "$enclave" ]; then cmd_enclave --config "$config" "${arguments[@]}"; fi
    lock
    tools
    wheels
    [ -z "$given" ] || measure_given "$given"
    made "$cache/wheelhouse" "$pythons $machines $(cat requirements.lock)" make_wheelhouse
    rm -rf "$cache/images"
    [ -z "$images" ] || save_images
    version=$(PYTHONPATH=$root "$python" -c 'import nitroproxy; print(nitroproxy.__version__)')
    before=$build/nitroproxy-$version
    rm -rf "$build/artifacts.new"
    trap 'rm -rf "$build/artifacts.new" "$build/root" "$cache"/*.new' EXIT
    make_artifacts "$build/artifacts.new"
    rm -rf "$before"
    mv "$build/artifacts.new" "$before"
    ln -sfn "nitroproxy-$version/deploy.sh" "$build/deploy.sh"
    say "${before#"$root/"}: $(du -sh "$before" | cut -f1)"
}

# measure_given FILE: an image from elsewhere, with its measurements and a policy to fill in.
measure_given() {
    if [ "$1" -ef "$build/enclave.eif" ]; then
        eif=$1
    else
        mkdir -p "$build"
        cp "$1" "$build/enclave.eif.new"
        mv "$build/enclave.eif.new" "$build/enclave.eif"
        eif=$build/enclave.eif
    fi
    image measure "$eif" --measurements "$build/measurements.json" --policy "$build/policy.json" >&2
}

save_images() {
    local name
    cmd_docker
    mkdir -p "$cache/images"
    for name in enclave host demo; do make_saved "nitroproxy-$name" "$cache/images/nitroproxy-$name.tar"; done
}
