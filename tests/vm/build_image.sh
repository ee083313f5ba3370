#!/usr/bin/env bash
# Makes the guest image of the VM test. Root only; needs mmdebstrap, dpkg, e2fsprogs and a Python with pip.
#
# usage: build_image.sh PYTHON LOCK DIRECTORY
#
# PYTHON downloads what the file LOCK names; DIRECTORY gets root.ext4 and vmlinuz. The image is Debian 12 with systemd,
# Python, and /opt/nitroproxy, a virtual environment with all that LOCK names. The project
# itself is not in it: each run brings its own.
set -euo pipefail

python=$1 lock=$2 out=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/nitroproxy-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
packages=systemd,systemd-sysv,dbus,python3,python3-venv,iproute2,kmod,procps

# A guest without udev, gettys and timers is up in seconds, even when it is emulated.
masked=(systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
    systemd-udev-settle.service systemd-hwdb-update.service systemd-pstore.service systemd-binfmt.service
    systemd-random-seed.service systemd-rfkill.service systemd-timesyncd.service systemd-journal-flush.service
    systemd-update-utmp.service systemd-update-utmp-runlevel.service getty@.service serial-getty@.service getty.target
    ldconfig.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer)

debian() {
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -f "$sources" ] || sources=/etc/apt/sources.list
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        bookworm "$root" "$sources"
}

# The kernel has NVMe and ext4 built in, so that it needs no initramfs; of its modules those for vsock and KVM are taken.
kernel() {
    local package tree version module
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package")
    tree=$work/kernel
    dpkg-deb -x "$work/$package"_*.deb "$tree"
    version=${package#linux-image-}
    cp "$tree/boot/vmlinuz-$version" "$work/vmlinuz"
    for module in modules.builtin modules.builtin.modinfo modules.order kernel/net/vmw_vsock kernel/drivers/virtio \
        kernel/drivers/net/vsockmon.ko; do
        mkdir -p "$(dirname "$root/lib/modules/$version/$module")"
        cp -r "$tree/lib/modules/$version/$module" "$root/lib/modules/$version/$module"
    done
    chroot "$root" depmod "$version"
}

# What the lock names is downloaded here, checked against its hashes, and installed there without a network.
environment() {
    "$python" -m pip download --quiet --require-hashes --no-deps --only-binary :all: --python-version 3.11 \
        --dest "$root/var/wheels" -r "$lock"
    cp "$lock" "$root/var/wheels/requirements.lock"
    chroot "$root" python3 -m venv /opt/nitroproxy
    chroot "$root" env -i HOME=/root PATH=/usr/bin:/bin /opt/nitroproxy/bin/python -m pip --disable-pip-version-check \
        install --quiet --no-index --find-links /var/wheels --require-hashes -r /var/wheels/requirements.lock
    rm -rf "$root/var/wheels"
}

settle() {
    local unit
    cp -r "$here"/guest/. "$root/"
    for unit in "${masked[@]}"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../stage.service "$root/etc/systemd/system/multi-user.target.wants/stage.service"
    echo guest >"$root/etc/hostname"
    echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
    : >"$root/etc/fstab"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
}

lap() {
    "$@"
    printf 'image: %s after %s s\n' "$1" "$SECONDS" >&2
}

lap debian
lap kernel
lap environment
lap settle
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -m 0 -E lazy_itable_init=1,root_owner=0:0 -d "$root" "$work/root.ext4" 2G
mkdir -p "$out"
mv "$work/vmlinuz" "$work/root.ext4" "$out/"
printf 'image: made after %s s\n' "$SECONDS" >&2
