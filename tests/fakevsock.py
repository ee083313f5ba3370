"""A stand-in for AF_VSOCK sockets: TCP sockets on loopback that name, refuse and fail as vsock does under Linux.

No AF_VSOCK socket is ever made. `FakeKernel` is the namespace of addresses; its `socket` takes the place of
`nitroproxy.vsock.transport.vsock_socket`.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from nitroproxy.vsock.address import CID_ANY

#: The cid that peers of accepted connections have.
GUEST = 16


class FakeKernel:
    """Makes sockets whose addresses are ``(cid, port)``."""

    def __init__(self) -> None:
        self.made: list[FakeSocket] = []
        #: The TCP address of each bound port.
        self.bound: dict[int, Any] = {}
        #: Outgoing connections by their TCP address, until they are accepted.
        self.connecting: dict[Any, FakeSocket] = {}
        #: errno of the next bind() or connect(), raised at once.
        self.fail_bind: int | None = None
        self.fail_connect: int | None = None
        #: errno that a connect under way ends with, found in SO_ERROR.
        self.fail_later: int | None = None

    def socket(self) -> FakeSocket:
        """A new socket."""
        made = FakeSocket(self, socket.socket())
        self.made.append(made)
        return made


class FakeSocket:
    """One socket. Everything that it does not define is the TCP socket's."""

    def __init__(self, kernel: FakeKernel, real: socket.socket) -> None:
        self._kernel = kernel
        self._real = real
        self._name = (CID_ANY, 0)
        self._bound = -1
        self._error = 0
        self._reads = True
        self.peer: FakeSocket | None = None
        #: Sizes given to send().
        self.sent: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def bind(self, address: tuple[int, int]) -> None:
        """EADDRINUSE for a port in use; for port 0 the kernel chooses one."""
        if self._kernel.fail_bind is not None:
            raise OSError(self._kernel.fail_bind, os.strerror(self._kernel.fail_bind))
        cid, port = address
        port = port or next(free for free in range(1024, 65536) if free not in self._kernel.bound)
        if port in self._kernel.bound:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._real.bind(("127.0.0.1", 0))
        self._kernel.bound[port] = self._real.getsockname()
        self._name = (cid, port)
        self._bound = port

    def getsockname(self) -> tuple[int, int]:
        """An outgoing socket's own cid reads as any."""
        return self._name

    def accept(self) -> tuple[FakeSocket, tuple[int, int]]:
        """The peer is a guest."""
        real, address = self._real.accept()
        accepted = FakeSocket(self._kernel, real)
        accepted._name = self._name
        accepted.peer = self._kernel.connecting.pop(address)
        accepted.peer.peer = accepted
        self._kernel.made.append(accepted)
        return accepted, (GUEST, address[1])

    def connect_ex(self, address: tuple[int, int]) -> int:
        """ECONNRESET without a listener."""
        if self._kernel.fail_connect is not None:
            return self._kernel.fail_connect
        if self._kernel.fail_later is not None:
            self._error = self._kernel.fail_later
            self._poll_as_refused()
            return errno.EINPROGRESS
        if address[1] not in self._kernel.bound:
            return errno.ECONNRESET
        result = self._real.connect_ex(self._kernel.bound[address[1]])
        if result == errno.EINPROGRESS:
            self._kernel.connecting[self._real.getsockname()] = self
        return result

    def _poll_as_refused(self) -> None:
        """Make this descriptor poll as POLLOUT and POLLERR only, with a pipe whose other end is closed."""
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, self._real.fileno())
        os.close(writing)

    def send(self, data: Any) -> int:
        """EPIPE for an empty send, and for any send to a peer that reads no more, including the first."""
        self.sent.append(len(data))
        if self.peer is not None and not self.peer._reads:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        return self._real.send(data)

    def shutdown(self, how: int) -> None:
        """As TCP's; if it ends reading, the peer's next send fails."""
        self._reads = self._reads and how == socket.SHUT_WR
        # Only the FIN: TCP would answer later data with a reset, which vsock does not.
        self._real.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closing frees a listening socket's port."""
        self._reads = False
        self._kernel.bound.pop(self._bound, None)
        self._real.close()

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """CPython accepts only integers here, and vsock has no TCP options."""
        if isinstance(value, bytes):
            raise TypeError("CPython takes no bytes here for AF_VSOCK")
        if level == socket.IPPROTO_TCP:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    def getsockopt(self, level: int, option: int, length: int | None = None) -> int:
        """CPython fills no buffer here."""
        if length is not None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._error
