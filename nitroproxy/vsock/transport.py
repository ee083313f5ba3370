"""AF_VSOCK sockets as Twisted transports: corrects what Twisted's TCP classes assume and AF_VSOCK does not do.

Observed under Linux 6.1 with CPython 3.11; each override gives its reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any, Final

from twisted.internet import error, main, tcp
from twisted.internet.base import BaseConnector, BasePort
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from nitroproxy.vsock.address import CID_ANY, VsockAddress

#: The most bytes for one send(). Kernels since August 2025 corrupt or stall larger vsock packets built from fragments.
LARGEST_SEND: Final = 31 * 1024

#: The meaning of an errno of connect() or bind() between an enclave and its parent.
MEANINGS: Final = {
    errno.ENODEV: "no vsock transport, or no VM with this cid is running",
    errno.ENETUNREACH: "no such cid can be reached from here",
    errno.ECONNRESET: "no listener on that port, or its accept queue is full",
    errno.ETIMEDOUT: "the VM does not answer: it is frozen, or gone",
    errno.EADDRNOTAVAIL: "the cid is not this machine's own",
    errno.EADDRINUSE: "the port is taken",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
    errno.EAFNOSUPPORT: "AF_VSOCK is not allowed here (RestrictAddressFamilies) or not in this kernel",
    errno.EPERM: "AF_VSOCK is not allowed here (a container's seccomp profile)",
}


def explain(number: int) -> str:
    """An errno in words, with its meaning on vsock."""
    meaning = MEANINGS.get(number)
    return f"{os.strerror(number)} ({meaning})" if meaning else os.strerror(number)


def vsock_socket() -> socket.socket:
    """A new AF_VSOCK stream socket. All classes of this module get their sockets from this function.

    :raises OSError: if this system has no AF_VSOCK, or no socket can be created.
    """
    family = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this Python has no AF_VSOCK")
    return socket.socket(family, socket.SOCK_STREAM)


class _VsockConnection:
    """A mixin for Twisted's TCP connections; it comes first among the bases."""

    SEND_LIMIT: int
    socket: Any
    disconnecting: Any
    _saw_end = False

    def _closeSocket(self, orderly: bool) -> None:
        """Close. vsock has no abortive close, and CPython refuses the bytes of Twisted's SO_LINGER: the stock method
        would leak the socket and never report the loss."""
        for operation in (lambda: self.socket.shutdown(socket.SHUT_RDWR), self.socket.close):
            with contextlib.suppress(OSError):  # The peer may be gone already; the close is all that matters.
                operation()

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer has ended its direction."""
        self._saw_end = True
        super().readConnectionLost(reason)  # type: ignore[misc]

    def writeSomeData(self, data: Any) -> Any:
        """Send as much as there is room for, in pieces of `LARGEST_SEND`.

        On vsock send(b"") after the peer's close fails with EPIPE, where TCP returns 0: every clean end of TLS would
        look like a loss. The *first* send after the peer's close also fails with EPIPE, where TCP's succeeds: the stock
        method would then drop the last bytes from the peer. So that write is discarded, and reading continues to the
        end.
        """
        left = memoryview(data)[: self.SEND_LIMIT]
        sent = 0
        while left:
            piece = left[:LARGEST_SEND]
            try:
                taken: int = self.socket.send(piece)
            except InterruptedError:
                return sent
            except OSError as lost:
                if sent or lost.errno in (errno.EAGAIN, errno.ENOBUFS):
                    return sent  # The next send reports the error again.
                if lost.errno == errno.EPIPE and not self._saw_end and not self.disconnecting:
                    return len(data)
                return main.CONNECTION_LOST
            sent += taken
            if taken < len(piece):
                return sent
            left = left[taken:]
        return sent

    # Socket options that vsock does not have.

    def getTcpNoDelay(self) -> bool:
        """False: vsock has no Nagle algorithm."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: the option is ENOPROTOOPT on vsock, and not needed."""

    def getTcpKeepAlive(self) -> bool:
        """False: vsock has no keepalive; the connections of a VM that dies are reset."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: vsock has no keepalive."""

    def getHost(self) -> IAddress:
        """The address of this end; the cid of an outgoing socket is `CID_ANY`."""
        return VsockAddress(*self.socket.getsockname())


class VsockServer(_VsockConnection, tcp.Server):
    """An accepted connection."""

    client: tuple[int, int]

    def getPeer(self) -> IAddress:
        """The address of the other end."""
        return VsockAddress(*self.client)


class VsockPort(tcp.Port):
    """A listening socket.

    :param interface: the cid to listen on, usually `CID_ANY`.
    """

    transport = VsockServer
    _type = "VSOCK"

    def __init__(self, reactor: Any, port: int, factory: Any, backlog: int, interface: int = CID_ANY) -> None:
        # Not tcp.Port's own, which treats the interface as an IP address.
        BasePort.__init__(self, reactor=reactor)
        self.port = port
        self.factory = factory
        self.backlog = backlog
        self.interface: Any = interface  # tcp.Port binds to it

    def createInternetSocket(self) -> socket.socket:
        """A socket that listens on vsock. No SO_REUSEADDR: vsock needs none, and SO_REUSEPORT is refused."""
        skt = vsock_socket()
        skt.setblocking(False)
        return skt

    def startListening(self) -> None:
        """Listen.

        :raises CannotListenError: with the meaning of the errno on vsock.
        """
        try:
            super().startListening()
        except error.CannotListenError as failed:
            number = failed.socketError.errno
            raise error.CannotListenError(self.interface, self.port, explain(number)) from failed
        except OSError as failed:
            raise error.CannotListenError(self.interface, self.port, explain(failed.errno or 0)) from failed

    def _buildAddr(self, address: tuple[int, int]) -> VsockAddress:
        return VsockAddress(*address)

    def getHost(self) -> VsockAddress:
        """The address that it listens on."""
        return VsockAddress(*self.socket.getsockname())


class VsockClient(_VsockConnection, tcp.BaseClient):
    """An outgoing connection."""

    def __init__(self, cid: int, port: int, connector: VsockConnector, reactor: Any) -> None:
        self.connector = connector
        self.realAddress = self.addr = (cid, port)
        try:
            skt = self.createInternetSocket()
        except OSError as failed:  # No AF_VSOCK, or out of descriptors.
            refused = error.ConnectBindError(failed.errno, explain(failed.errno or 0))
            self._finishInit(None, None, refused, reactor)
        else:
            self._finishInit(self.doConnect, skt, None, reactor)

    def createInternetSocket(self) -> socket.socket:
        """A socket to connect with."""
        skt = vsock_socket()
        skt.setblocking(False)
        return skt

    def connectionLost(self, reason: Failure) -> None:
        """The connection is lost, or was never made.

        A refused vsock connect polls as POLLOUT and POLLERR only, so the epoll reactor calls this and not doConnect;
        the errno is still in SO_ERROR.
        """
        if not self.connected and hasattr(self, "socket"):
            number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
            self.failIfNotConnected(error.getConnectError((number, explain(number))))
        else:
            tcp.BaseClient.connectionLost(self, reason)

    def failIfNotConnected(self, err: Any) -> None:
        """Report a failed attempt with its meaning on vsock, where ECONNRESET is a refusal."""
        number = getattr(err, "osError", None)
        if number in MEANINGS:
            kind = error.ConnectionRefusedError if number == errno.ECONNRESET else type(err)
            err = kind(number, explain(number))
        tcp.BaseClient.failIfNotConnected(self, err)

    def getPeer(self) -> IAddress:
        """The address of the other end."""
        return VsockAddress(*self.realAddress)


class VsockConnector(BaseConnector):
    """Makes one `VsockClient`."""

    def __init__(self, cid: int, port: int, factory: Any, timeout: float, reactor: Any) -> None:
        super().__init__(factory, timeout, reactor)
        self._address = VsockAddress(cid, port)

    def _makeTransport(self) -> VsockClient:  # type: ignore[override]  # typed there for TCP only
        return VsockClient(self._address.cid, self._address.port, self, self.reactor)

    def getDestination(self) -> VsockAddress:
        """The address that it connects to."""
        return self._address
