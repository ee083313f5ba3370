"""Listening sockets that several processes share: `SharedSocket` holds one for others to accept from,
`InheritedEndpoint` accepts from one that came from another process.

There is one queue of connections. A process accepts one connection a turn of its reactor, and leaves the next to the
others for a moment when it has more than its share: so a burst is spread and not taken whole by one process. Twisted's
own way to adopt a socket does not support AF_VSOCK, and its UNIX port removes the path that others still use. Knows
nothing of supervisors and workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.daemon.place import listen, seal_queue
from nitroproxy.daemon.role import Server
from nitroproxy.vsock.transport import VsockPort

#: Seconds for which connections are left to others, and how many are accepted then if they still wait.
_MOMENT: Final = 0.005
_LEFT: Final = 8


class _Inherited:
    """Mixed into Twisted's listening ports, before them.

    :ivar has_enough: gives whether this process has more than its share.
    :ivar leaves: whether it leaves connections to others at this moment.
    """

    has_enough: Callable[[], bool]
    leaves = False
    reactor: Any
    connected: Any

    def startListening(self) -> None:
        """Accept from the socket, which listens already."""
        tcp.Port.startListening(self)  # type: ignore[arg-type]
        self.numberAccepts = 1

    def doRead(self) -> None:
        """Accept one connection, or leave it to another process; a port of Twisted's accepts more and more at a time.
        At a drain, which sets ``numberAccepts``, all in the queue are accepted, whatever this process's share."""
        if self.numberAccepts == 1 and self.has_enough():
            self.leaves = True
            tcp.Port.stopReading(self)  # type: ignore[arg-type]
            self.reactor.callLater(_MOMENT, self._look_again)
            return
        tcp.Port.doRead(self)  # type: ignore[arg-type]
        self.numberAccepts = 1

    def _look_again(self) -> None:
        self.leaves = False
        if self.connected:
            self.numberAccepts = _LEFT
            tcp.Port.doRead(self)  # type: ignore[arg-type]
            self.numberAccepts = 1
            if not self.leaves:  # Unless it has paused meanwhile, for want of descriptors.
                tcp.Port.startReading(self)  # type: ignore[arg-type]

    def connectionLost(self, reason: Failure) -> None:
        """Close this process's descriptor and nothing else."""
        tcp.Port.connectionLost(self, reason)  # type: ignore[arg-type]


class _TCPPort(_Inherited, tcp.Port):
    def __init__(self, reactor: Any, listening: socket.socket, factory: IProtocolFactory) -> None:
        host, port = listening.getsockname()[:2]
        super().__init__(port, factory, interface=host, reactor=reactor)
        self._preexistingSocket = listening


class _UNIXPort(_Inherited, unix.Port):
    def __init__(self, reactor: Any, listening: socket.socket, factory: IProtocolFactory) -> None:
        super().__init__(listening.getsockname(), factory, reactor=reactor)
        self._preexistingSocket = listening

    @property
    def _realPortNumber(self) -> Any:
        """What Twisted's log says that it listens on: the path, of which Twisted takes the second letter for a port."""
        return os.fsdecode(self._bindPath)

    @_realPortNumber.setter
    def _realPortNumber(self, number: object) -> None:
        """Twisted sets it to that letter."""


class _VsockPort(_Inherited, VsockPort):
    def __init__(self, reactor: Any, listening: socket.socket, factory: IProtocolFactory) -> None:
        cid, port = listening.getsockname()
        super().__init__(reactor, port, factory, 0, cid)
        self._preexistingSocket = listening


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """Accepts from a listening socket of this process's parent.

    :param descriptor: the socket's, which the endpoint takes over.
    :param has_enough: gives whether this process has more than its share of the connections.
    """

    def __init__(self, reactor: Any, descriptor: int, has_enough: Callable[[], bool] = lambda: False) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._has_enough = has_enough

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept; fails with OSError if the descriptor is no listening socket."""

        def listen() -> Any:
            listening = socket.socket(fileno=self._descriptor)
            listening.setblocking(False)
            if listening.family == getattr(socket, "AF_VSOCK", None):
                kind: Any = _VsockPort
            else:
                kind = _UNIXPort if listening.family == socket.AF_UNIX else _TCPPort
            port: Any = kind(self._reactor, listening, protocolFactory)
            port.has_enough = self._has_enough
            port.startListening()
            return port

        return execute(listen)


class SharedSocket:
    """A listening socket that this process holds and does not accept from.

    :ivar name: the place's.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.name = server.name
        #: Twisted's port; None until `open`.
        self._port: Any = None

    def open(self) -> None:
        """Listen, and leave connections in the queue. See `nitroproxy.daemon.place.listen`."""
        unused = Factory()
        unused.noisy = False
        self._port = listen(self._server.endpoint, unused, self._server.hop, self.name)
        self._port.stopReading()

    @property
    def descriptor(self) -> int:
        """The socket's."""
        number: int = self._port.fileno()
        return number

    async def seal(self) -> float:
        """Let nothing more into the queue, which others empty; not when the service manager goes on listening.

        :returns: the seconds that this has taken.
        """
        if self._server.lent or self._port is None or not self._port.connected:
            return 0.0
        return await seal_queue(self._port)

    def close(self) -> None:
        """Close this process's descriptor; the socket stays open while another process has it."""
        if self._port is not None and self._port.connected:
            # Not left to the port, which would shut the socket down for every process.
            os.close(self._port.socket.detach())
            self._port.connectionLost(Failure(ConnectionDone()))
