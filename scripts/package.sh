#!/usr/bin/env bash
# Makes packages of the host's part. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Its functions; what has the same name here replaces it.
# shellcheck source=scripts/build.sh
source "$root/scripts/build.sh"

usage() {
    cat <<'TEXT'
usage: scripts/package.sh deb|rpm

  deb   build/nitroproxy_VERSION-1_ARCH.deb, for Debian 12 (Python 3.11)
  rpm   build/nitroproxy-VERSION-1.amzn2023.ARCH.rpm, for Amazon Linux 2023 (python3.11), with rpmbuild

Both have /opt/nitroproxy, the units, the configuration, man pages and bash completion. Neither has an enclave image, and neither
starts anything. The same files give the same bytes. They need root, since files in them belong to it.
TEXT
}

# make_tree DIRECTORY: what both packages put in place.
make_tree() {
    local tree=$1 name share manual=$cache/manual
    rm -rf "$cache/install" "$manual"
    mkdir -p "$cache/install"
    cp "$cache"/wheels/*.whl "$cache"/own/*.whl "$cache/install/"
    docker/install.sh "$tree" /usr/bin/python3.11 "$cache/install" "$(machine)" "$python" -m pip >&2
    rm -rf "$cache/install"
    mkdir -p "$tree"/{etc/nitroproxy,usr/bin,usr/lib/systemd/system,usr/lib/sysusers.d} \
        "$tree"/usr/share/{man/man1,bash-completion/completions,doc/nitroproxy}
    # Trimmed for an enclave; a host's install-units needs it.
    share=$tree/opt/nitroproxy/share/nitroproxy
    mkdir -p "$share"/{etc,docs,systemd}
    cp etc/{config.json,local.json,nitroproxy.env,nitroproxy.schema.json} "$share/etc/"
    cp docs/operations.md "$share/docs/"
    cp systemd/nitroproxy* "$share/systemd/"
    PYTHONPATH=$tree/opt/nitroproxy/lib/python3.11/site-packages "$python" docker/finish.py "$tree" >&2
    cp systemd/*.service systemd/*.socket "$tree/usr/lib/systemd/system/"
    cp systemd/nitroproxy.sysusers "$tree/usr/lib/sysusers.d/nitroproxy.conf"
    install -m 644 etc/config.json "$tree/etc/nitroproxy/config.json"
    install -m 640 etc/nitroproxy.env "$tree/etc/nitroproxy/nitroproxy.env"
    PYTHONPATH=$root "$python" scripts/manual.py "$manual"
    for name in "$manual"/man1/*.1; do gzip -9n <"$name" >"$tree/usr/share/man/man1/${name##*/}.gz"; done
    cp "$manual/bash-completion/nitroproxy" "$tree/usr/share/bash-completion/completions/"
    cp LICENSE "$tree/usr/share/doc/nitroproxy/copyright"
    ln -s /opt/nitroproxy/bin/nitroproxy "$tree/usr/bin/nitroproxy"
    chmod -R u+rwX,go+rX,go-w "$tree"
    chmod 640 "$tree/etc/nitroproxy/nitroproxy.env"
    find "$tree" ! -path '*/twisted/plugins/*.py' -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

prepare() {
    [ "$(id -u)" = 0 ] || die "packages are made as root: the files in them belong to root"
    "$(find_python)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || die "Python 3.11 is needed: the packages are for it"
    lock
    tools
    wheels
    version=$(PYTHONPATH=$root "$python" -c 'import nitroproxy; print(nitroproxy.__version__)')
    tree=$cache/tree
    trap 'rm -rf "$cache/tree" "$cache/rpmbuild" "$cache"/*.new' EXIT
    rm -rf "$tree"
    make_tree "$tree"
}

cmd_deb() {
    local architecture package
    need dpkg dpkg-deb
    prepare
    architecture=$(dpkg --print-architecture)
    package=$build/nitroproxy_$version-1_$architecture.deb
    mkdir "$tree/DEBIAN"
    sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/" packaging/deb/control >"$tree/DEBIAN/control"
    printf '%s\n' /etc/nitroproxy/config.json /etc/nitroproxy/nitroproxy.env >"$tree/DEBIAN/conffiles"
    install -m 755 packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm "$tree/DEBIAN/"
    find "$tree/DEBIAN" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --build --root-owner-group -Zxz "$tree" "$package.new" >&2
    mv "$package.new" "$package"
    say "${package#"$root/"}"
}

cmd_rpm() {
    local package
    need rpm rpmbuild
    prepare
    rm -rf "$cache/rpmbuild"
    rpmbuild -bb --quiet --target "$(machine)" --define "_topdir $cache/rpmbuild" --define "tree $tree" \
        --define "version_of_nitroproxy $version" --define "dist .amzn2023" packaging/nitroproxy.spec >&2
    package=$(find "$cache/rpmbuild/RPMS" -name '*.rpm')
    mv "$package" "$build/"
    say "build/${package##*/}"
}

verb=${1:-help}
case $verb in
    deb | rpm) "cmd_$verb" ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
