"""TCP and UNIX transports without the system calls of Twisted's that a proxy can do without.

They are Twisted's own classes but for this: nothing is sent when there is nothing to send; a socket is closed without
being shut down first, as no other process has its descriptor; a TCP connection is attempted at once, with one
connect(), and its descriptor is entered into epoll once; a UNIX socket reads and writes plainly and takes no
descriptors from its peer. `nitroproxy.daemon.reactor` makes them for what is dialled, `nitroproxy.daemon.place` for
what is accepted.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import getConnectError
from twisted.python.failure import Failure


class _Quick:
    """Mixed into Twisted's connections, before them."""

    _shouldShutdown = False

    def writeSomeData(self, data: Any) -> Any:
        """Send as much of *data* as there is room for. Nothing is sent when there is none: Twisted does that before it
        closes.

        :returns: how much, or what ends the connection.
        """
        return tcp.Connection.writeSomeData(self, data) if data else 0  # type: ignore[arg-type]


class _QuickUNIX(_Quick):
    doRead: Any = tcp.Connection.doRead


class TCPServer(_Quick, tcp.Server):
    """An accepted TCP connection."""


class UNIXServer(_QuickUNIX, unix.Server):
    """An accepted UNIX connection."""


class UNIXClient(_QuickUNIX, unix.Client):
    """A dialled UNIX connection."""


class TCPClient(_Quick, tcp.Client):
    """A dialled TCP connection."""

    reactor: Any
    doRead: Any
    doWrite: Any

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        """Connect to an IP address now; Twisted does so a turn of the reactor later, and again once it is connected."""
        if whenDone is None or self._requiresResolution:
            super()._finishInit(whenDone, skt, error, reactor)
            return
        tcp.Connection.__init__(self, skt, None, reactor)  # type: ignore[arg-type]
        self.realAddress = self.addr
        number = skt.connect_ex(self.addr)
        if number == errno.EINPROGRESS:
            self.doRead = self.doWrite = self._settle
            self.startWriting()
        else:
            # Whoever dials has not been told yet that the attempt has begun.
            reactor.callLater(0, self._settle, number)

    def _settle(self, number: int = 0) -> None:
        """The attempt is over.

        :param number: the errno of one that failed at once.
        """
        if not hasattr(self, "connector"):
            return  # It has been stopped meanwhile.
        number = number or self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.failIfNotConnected(getConnectError((number, os.strerror(number))))
            return
        if "doWrite" in self.__dict__:
            del self.doRead, self.doWrite
            self.reactor.readInsteadOfWriting(self)
        self._connectDone()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is lost, or was never made: epoll reports a refusal as a hang-up, and the errno is still
        there."""
        if not self.connected and hasattr(self, "socket"):
            self._settle(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNREFUSED)
        else:
            super().connectionLost(reason)


class TCPConnector(tcp.Connector):
    """Makes one `TCPClient`."""

    def _makeTransport(self) -> TCPClient:
        return TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)


class UNIXConnector(unix.Connector):
    """Makes one `UNIXClient`."""

    def _makeTransport(self) -> UNIXClient:  # type: ignore[override]  # typed there for TCP only
        return UNIXClient(self.address, self, self.reactor, self.checkPID)


#: What a listening port of Twisted's makes of the connections that it accepts, and what it makes instead.
_ACCEPTED: Final[dict[Any, Any]] = {tcp.Server: TCPServer, unix.Server: UNIXServer}


def holds_nothing(transport: FileDescriptor) -> bool:
    """Whether all that was written to *transport* has left, as far as this process goes."""
    return not transport.dataBuffer and not transport._tempDataLen


def accept_quickly(port: Any) -> None:
    """Have *port*, which listens on TCP or a UNIX socket, make such transports; another port stays as it is."""
    port.transport = _ACCEPTED.get(port.transport, port.transport)
