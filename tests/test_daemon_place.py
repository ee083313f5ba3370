"""Places where a daemon listens, how they end, and where it cannot."""

from __future__ import annotations

import errno
import io
import select
import socket
import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from nitroproxy.daemon.place import ListeningPlace, Unable
from tests.wire import OneHop

reactor: Any = global_reactor


@implementer(IStreamServerEndpoint)
class Taken:
    """An endpoint that cannot listen."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(self._error)


class ListenerTests(SynchronousTestCase):
    """A daemon that cannot listen ends."""

    def test_cannot_listen(self) -> None:
        """It ends with status 1 and one line that has the place and the reason once."""
        taken = OSError(errno.EADDRINUSE, "Address already in use")
        for error, reason in (
            (CannotListenError("127.0.0.1", 8080, taken), "Address already in use"),
            (CannotListenError("any", b"/run/x.sock", OSError("Cannot acquire lock")), "in use by another daemon"),
            (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
            (ValueError("no socket"), "no socket"),
        ):
            said = io.StringIO()
            self.patch(sys, "__stderr__", said)
            listener = ListeningPlace(Taken(error), "127.0.0.1:8080", OneHop().factory)
            unable = self.assertRaises(Unable, listener.listen)
            self.assertEqual(unable.code, 1)
            self.assertEqual(said.getvalue(), f"nitroproxy-test: cannot listen on 127.0.0.1:8080: {reason}\n")
            self.assertFalse(listener.accepting)

    def test_twistd_hears(self) -> None:
        """In the background twistd tells an Exception, and nothing else, to who started it: it is one."""
        self.assertTrue(issubclass(Unable, Exception) and issubclass(Unable, SystemExit))


class Late:
    """A port's socket: when its queue has been found empty, and before it is closed, a client connects."""

    def __init__(self, real: Any, connect: Any) -> None:
        self._real = real
        self._connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self) -> Any:
        """See `socket.socket.accept`."""
        try:
            return self._real.accept()
        except BlockingIOError:
            self._connect()
            raise


class StopTests(TestCase):
    """`ListeningPlace.stop`, with real sockets."""

    def setUp(self) -> None:
        self.hop = OneHop()
        self.clients: list[socket.socket] = []
        self.addCleanup(self.clean)

    def clean(self) -> None:
        for client in self.clients:
            client.close()

    def connect(self, address: Any) -> None:
        """Begin to connect; on loopback it is done at once, or waits for the other end."""
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(address)
        self.clients.append(client)

    async def stop(self, *, shared: bool) -> ListeningPlace:
        """Stop a place to which two clients connect, one of them at the last moment."""
        place = ListeningPlace(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), "there", self.hop.factory, shared=shared
        )
        place.listen()
        port: Any = place._port
        address = port.socket.getsockname()
        self.connect(address)
        port.socket = Late(port.socket, lambda: self.connect(address))
        stopping = Deferred.fromCoroutine(place.stop(5.0))
        while port.connected:
            await deferLater(reactor, 0.001)
        self.assertGreater(len(self.clients), 1, "one came late")
        self.assertEqual(place.connections, 1)
        for client in self.clients[:1]:
            client.close()
        while not stopping.called:
            await deferLater(reactor, 0.001)
            self.hop.pass_time(0.1)
        self.assertTrue(await stopping)
        return place

    async def test_no_reset(self) -> None:
        """Who connects between the last accept and the close is not reset: it is refused when it tries again."""
        await self.stop(shared=False)
        for late in self.clients[1:]:
            self.assertEqual(select.select([], [late], [], 30)[1], [late])
            self.assertEqual(late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)

    async def test_shared(self) -> None:
        """What another process listens at as well is left as it is: it lets in who comes."""
        await self.stop(shared=True)
        late = self.clients[-1]
        self.assertEqual(select.select([], [late], [], 30)[1], [late])
        self.assertNotEqual(late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)
