"""The receiving end of systemd's notification protocol (sd_notify(3)) in an enclave, where init takes systemd's part:
the daemon says when it is ready, and that it is alive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.protocol import DatagramProtocol

from nitroproxy.enclave.init_children import Account

_MOST_BYTES: Final = 4096


class NotifySocket(DatagramProtocol):
    """A UNIX datagram socket for one daemon.

    :param ready: called for ``READY=1``.
    :param alive: called for ``WATCHDOG=1``.
    """

    noisy = False  # Twisted would log its start

    def __init__(self, ready: Callable[[], object], alive: Callable[[], object]) -> None:
        self._ready = ready
        self._alive = alive

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """See `DatagramProtocol`."""
        lines = datagram.split(b"\n")
        if b"READY=1" in lines:
            self._ready()
        if b"WATCHDOG=1" in lines:
            self._alive()


def listen(reactor: Any, path: Path, protocol: NotifySocket, account: Account | None) -> None:
    """Listen at *path*, where only *account* may send: the application must not speak for the daemon.

    :raises OSError: the socket cannot be made.
    """
    with suppress(FileNotFoundError):
        path.unlink()  # of an init before this one
    before = os.umask(0o177)
    try:
        reactor.listenUNIXDatagram(str(path), protocol, maxPacketSize=_MOST_BYTES, mode=0o600)
    finally:
        os.umask(before)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def variables(path: Path, watchdog: float) -> Mapping[str, str]:
    """The environment that makes the daemon use the socket at *path*.

    :param watchdog: seconds within which it has to say that it is alive.
    """
    return {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(watchdog * 1e6))}
