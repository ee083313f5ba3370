#!/bin/sh
# Runs one stage of the VM test in the guest and powers it off. The payload, a tar file, is the second disk; what the
# stage leaves in /run/out goes to the third. The second serial port carries its output, line by line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /run/payload /run/out
cd /run/payload || exit 1
tar xf /dev/nvme1n1
stty -F /dev/ttyS1 raw
limit=$(sed -n 's/.*\blimit=\([0-9]*\).*/\1/p' /proc/cmdline)
timeout -k 5 "$limit" tests/vm/run.sh >/dev/ttyS1 2>&1 </dev/null
tar cf /dev/nvme2n1 -C /run/out .
sync
echo o >/proc/sysrq-trigger
sleep 60
