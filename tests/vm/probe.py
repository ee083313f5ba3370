"""Tries what a daemon's sandbox must not let happen, and what it must; run in it in place of the daemon.

It runs alone, with the standard library only, and prints one line: `MARK` and a JSON object.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Final

MARK: Final = "PROBE "
_CLONE_NEWUSER: Final = 0x10000000


def _unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_ATTEMPTS: Final[dict[str, Callable[[], object]]] = {
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "write": lambda: open("/etc/nitroproxy/written", "w"),  # noqa: SIM115  # it fails
    "home": lambda: os.listdir("/root"),
    "disk": lambda: open("/dev/nvme0n1", "rb"),  # noqa: SIM115  # it fails
    "kernel": lambda: open("/proc/sys/kernel/hostname", "w"),  # noqa: SIM115  # it fails
    "root": lambda: os.setuid(0),
    "chroot": lambda: os.chroot("/"),
    "namespace": _unshare,
    "priority": lambda: os.nice(-5),
}


def main() -> None:
    """Try everything."""
    print(MARK + json.dumps({name: _outcome(attempt) for name, attempt in _ATTEMPTS.items()}), flush=True)


def _outcome(attempt: Callable[[], object]) -> str:
    # In a process of its own: the filter of system calls kills.
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return os.strerror(status) if status else "allowed"


if __name__ == "__main__":
    main()
