#!/bin/sh
# In the guest: installs the project's wheel and runs the stage that the kernel's command line names.
set -eu
asked() { sed -n "s/.*\\b$1=\\([a-z0-9-]*\\).*/\\1/p" /proc/cmdline; }
/opt/nitroproxy/bin/pip --disable-pip-version-check install --quiet --no-index --no-deps --root-user-action ignore wheel/*.whl
# Twisted writes down which plugins there are, if it may: the daemons' user may not, and would look anew at each start.
/opt/nitroproxy/bin/twistd --help >/dev/null
exec env VM_SECONDS="$(asked seconds)" /opt/nitroproxy/bin/python -u -m tests.vm.stages "$(asked stage)"
