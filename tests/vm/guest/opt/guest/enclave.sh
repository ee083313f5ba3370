#!/bin/sh
# init= of the VM that plays the enclave. It does what comes before the image's entry point on Nitro: mounts the kernel's
# file systems, puts the image's files in place (a tar file, the second disk) and leaves the loopback down.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null # the kernel may have done it already
for directory in /run /tmp; do
    mount -t tmpfs tmpfs "$directory"
done
modprobe -a virtio_pci vmw_vsock_virtio_transport
tar xf /dev/nvme1n1 -C /
NITROPROXY_CONFIG=/etc/nitroproxy/config.json /opt/enclave/enclave-init.sh python3 -u /opt/enclave/application.py
echo "the entry point has ended with $?"
echo o >/proc/sysrq-trigger
sleep 60
