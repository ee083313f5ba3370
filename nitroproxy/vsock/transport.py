"""AF_VSOCK sockets as Twisted transports: what Twisted's TCP classes get wrong there, put right.

Seen under Linux 6.1 with CPython 3.11; each override says what it is for.
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

#: Most bytes given to one send(). Kernels since August 2025 corrupt or stall larger vsock packets built from fragments.
LARGEST_SEND: Final = 31 * 1024

#: What an errno of connect() or bind() means between an enclave and its parent.
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
    """An errno in words, with what it means on vsock."""
    meaning = MEANINGS.get(number)
    return f"{os.strerror(number)} ({meaning})" if meaning else os.strerror(number)


def vsock_socket() -> socket.socket:
    """A new AF_VSOCK stream socket. Everything here gets its sockets from this function.

    :raises OSError: where there are none.
    """
    family = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this Python has no AF_VSOCK")
    return socket.socket(family, socket.SOCK_STREAM)


class _VsockConnection:
    """Mixed into Twisted's TCP connections, before them."""

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
        """Send what there is room for, in pieces of `LARGEST_SEND`.

        On vsock send(b"") after the peer's close is EPIPE, where TCP gives 0: every clean end of TLS would look like a
        loss. And the *first* send after the peer's close is EPIPE, where TCP's succeeds: the stock method would then
        drop what the peer had sent last. So that write is swallowed, and reading goes on to the end.
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
                    return sent  # What is wrong will be met again.
                if lost.errno == errno.EPIPE and not self._saw_end and not self.disconnecting:
                    return len(data)
                return main.CONNECTION_LOST
            sent += taken
            if taken < len(piece):
                return sent
            left = left[taken:]
        return sent

    # Socket options that vsock has not got.

    def getTcpNoDelay(self) -> bool:
        """There is nothing like Nagle's algorithm on vsock."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """ENOPROTOOPT on vsock, and not needed."""

    def getTcpKeepAlive(self) -> bool:
        """A VM that dies resets its connections by itself."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Without effect on vsock."""

    def getHost(self) -> IAddress:
        """This end; the cid of an outgoing socket is `CID_ANY`."""
        return VsockAddress(*self.socket.getsockname())


class VsockServer(_VsockConnection, tcp.Server):
    """An accepted connection."""

    client: tuple[int, int]

    def getPeer(self) -> IAddress:
        """The other end."""
        return VsockAddress(*self.client)


class VsockPort(tcp.Port):
    """A listening socket.

    :param interface: the cid to listen on, usually `CID_ANY`.
    """

    transport = VsockServer
    _type = "VSOCK"

    def __init__(self, reactor: Any, port: int, factory: Any, backlog: int, interface: int = CID_ANY) -> None:
        # Not tcp.Port's own: that takes the interface for an IP address.
        BasePort.__init__(self, reactor=reactor)
        self.port = port
        self.factory = factory
        self.backlog = backlog
        self.interface: Any = interface  # what tcp.Port binds to

    def createInternetSocket(self) -> socket.socket:
        """A socket that listens on vsock. No SO_REUSEADDR: vsock needs none, and SO_REUSEPORT is refused."""
        skt = vsock_socket()
        skt.setblocking(False)
        return skt

    def startListening(self) -> None:
        """Listen.

        :raises CannotListenError: saying what the errno means on vsock.
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
        """The address listened on."""
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
        """The connection is gone, or never was.

        A refused vsock connect polls as POLLOUT and POLLERR only, so the epoll reactor comes here and not to doConnect;
        the errno is still in SO_ERROR.
        """
        if not self.connected and hasattr(self, "socket"):
            number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
            self.failIfNotConnected(error.getConnectError((number, explain(number))))
        else:
            tcp.BaseClient.connectionLost(self, reason)

    def failIfNotConnected(self, err: Any) -> None:
        """Report a failed attempt, in vsock's terms: ECONNRESET is how it refuses."""
        number = getattr(err, "osError", None)
        if number in MEANINGS:
            kind = error.ConnectionRefusedError if number == errno.ECONNRESET else type(err)
            err = kind(number, explain(number))
        tcp.BaseClient.failIfNotConnected(self, err)

    def getPeer(self) -> IAddress:
        """The other end."""
        return VsockAddress(*self.realAddress)


class VsockConnector(BaseConnector):
    """Makes one `VsockClient`."""

    def __init__(self, cid: int, port: int, factory: Any, timeout: float, reactor: Any) -> None:
        super().__init__(factory, timeout, reactor)
        self._address = VsockAddress(cid, port)

    def _makeTransport(self) -> VsockClient:  # type: ignore[override]  # typed there as if only TCP connected
        return VsockClient(self._address.cid, self._address.port, self, self.reactor)

    def getDestination(self) -> VsockAddress:
        """Where it connects to."""
        return self._address
