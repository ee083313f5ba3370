"""Listening sockets shared by processes; here both ends are in one, with real sockets. vsock: see the VM stages."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, TestCase

from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.role import Server
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.workers.shared_socket import InheritedEndpoint, SharedSocket
from tests.fakevsock import FakeKernel
from tests.wire import OneHop

reactor: Any = global_reactor


class Counting(Factory):
    """Counts connections, and remembers where they came from."""

    noisy = False

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.open: list[Any] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        """A connection has come."""
        self.peers.append(addr)
        protocol = Protocol()
        self.open.append(protocol)
        return protocol


class SharedTests(TestCase):
    """One socket, two that accept."""

    def setUp(self) -> None:
        self.factories = [Counting(), Counting()]
        self.ports: list[Any] = []
        self.clients: list[socket.socket] = []
        self.shared: SharedSocket | None = None
        self.addCleanup(self.clean)

    def clean(self) -> None:
        for client in self.clients:
            client.close()
        for factory in self.factories:
            for protocol in factory.open:
                protocol.transport.abortConnection()
        for port in self.ports:
            port.stopReading()
            if port.connected:
                port.connectionLost(None)
        if self.shared is not None:
            self.shared.close()

    async def share(self, endpoint: IStreamServerEndpoint) -> Any:
        """Listen there; returns the address."""
        shared = self.shared = SharedSocket(Server(endpoint, "there", "nitroproxy-test"))
        shared.open()
        with socket.socket(fileno=os.dup(shared.descriptor)) as listening:
            self.family, address = listening.family, listening.getsockname()
        for factory in self.factories:
            self.ports.append(await InheritedEndpoint(reactor, os.dup(shared.descriptor)).listen(factory))
        return address

    def connect(self, address: Any) -> socket.socket:
        client = socket.socket(self.family)
        client.connect(address)
        self.clients.append(client)
        return client

    async def until(self, count: int) -> None:
        while sum(len(factory.peers) for factory in self.factories) < count:
            await deferLater(reactor, 0.001)

    async def check(self, endpoint: IStreamServerEndpoint) -> Any:
        """A burst is spread over both, and one that closes leaves the socket to the other."""
        address = await self.share(endpoint)
        for _ in range(20):
            self.connect(address)
        await self.until(20)
        self.assertEqual([len(factory.peers) for factory in self.factories], [10, 10])
        assert self.shared is not None
        self.shared.close()
        self.ports[0].connectionLost(None)
        if self.family != socket.AF_UNIX:  # Its path has gone with the supervisor's descriptor.
            self.connect(address)
            await self.until(21)
            self.assertEqual([len(factory.peers) for factory in self.factories], [10, 11])
        return address

    def test_tcp(self) -> Deferred[Any]:
        """TCP."""
        return Deferred.fromCoroutine(self.check(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")))

    async def test_tcp6(self) -> None:
        """TCP over IPv6, and the peers' addresses are of that family."""
        if not Path("/proc/net/if_inet6").exists():
            raise SkipTest("there is no IPv6 here")
        await self.check(TCP6ServerEndpoint(reactor, 0, interface="::1"))
        self.assertEqual(self.factories[0].peers[0].host, "::1")

    async def test_unix(self) -> None:
        """A UNIX socket: its path goes with the supervisor's descriptor, and once only; the log names the path."""
        path = os.path.relpath(Path(self.mktemp()).absolute())
        messages: list[str] = []
        observer: Any = lambda event: messages.append(str(formatEvent(event)))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        await self.check(UNIXServerEndpoint(reactor, path, mode=0o600, wantPID=True))
        started = [message for message in messages if "starting on" in message and "Counting" in message]
        self.assertEqual([message.endswith(f"starting on {path}") for message in started], [True, True], started)
        self.assertFalse(os.path.exists(path))

    async def test_nobody_accepts(self) -> None:
        """Who holds a socket does not accept; who comes waits."""
        shared = self.shared = SharedSocket(
            Server(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), "there", "hop")
        )
        shared.open()
        with socket.socket(fileno=os.dup(shared.descriptor)) as listening:
            self.family, address = listening.family, listening.getsockname()
            self.connect(address)
            await deferLater(reactor, 0.01)
            listening.setblocking(False)
            listening.accept()[0].close()

    def listener(self, descriptor: int, has_enough: Callable[[], bool]) -> tuple[ListeningPlace, OneHop]:
        """A worker's place at the shared socket, and the hop whose clock it has."""
        hop = OneHop()
        factory = DownstreamFactory("hop", hop, ListenerSettings(), hop.deadlines)
        endpoint = InheritedEndpoint(reactor, os.dup(descriptor), has_enough)
        place = ListeningPlace(endpoint, "there", factory, shared=True)
        place.listen()
        return place, hop

    async def ended(self, stopping: Deferred[bool], hop: OneHop) -> None:
        while not stopping.called:
            await deferLater(reactor, 0.001)
            hop.pass_time(0.1)

    async def check_queue(self, has_enough: Callable[[], bool]) -> None:
        """The last one to let go accepts the whole queue."""
        address = await self.share(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        for port in self.ports:
            port.connectionLost(None)
        assert self.shared is not None
        listener, hop = self.listener(self.shared.descriptor, has_enough)
        clients = [self.connect(address) for _ in range(30)]
        await self.shared.seal()
        self.shared.close()
        stopping = Deferred.fromCoroutine(listener.stop(1.0))
        self.assertEqual(listener.connections, 30)
        for client in clients:
            client.close()
        await self.ended(stopping, hop)

    async def test_who_waits_is_served(self) -> None:
        """When all let go, the last one lets in who is in the queue by then."""
        await self.check_queue(lambda: False)

    async def test_queue_at_the_drain(self) -> None:
        """At a drain the whole queue is accepted, although this process has its share already."""
        await self.check_queue(lambda: True)

    async def test_sealed(self) -> None:
        """Who begins to connect when the socket is sealed does not get into the queue; one that the service manager has
        as well is not sealed."""
        with socket.create_server(("127.0.0.1", 0)) as given:
            given.setblocking(False)
            for endpoint, ready in (
                (TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), False),
                (AdoptedStreamServerEndpoint(reactor, os.dup(given.fileno()), socket.AF_INET), True),
            ):
                shared = SharedSocket(Server(endpoint, "there", "hop"))
                shared.open()
                await shared.seal()
                with socket.socket(fileno=os.dup(shared.descriptor)) as listening, socket.socket() as client:
                    client.setblocking(False)
                    client.connect_ex(listening.getsockname())
                    writable = select.select([], [client], [], 30 if ready else 0)[1]
                self.assertEqual(bool(writable), ready)
                shared.close()
                self.assertEqual(await shared.seal(), 0, "closed: nothing is left to seal")

    async def test_share(self) -> None:
        """Who has enough leaves connections to others for a moment, in which it still counts as accepting; it takes
        them if nobody else does."""
        shared = self.shared = SharedSocket(
            Server(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), "there", "hop")
        )
        shared.open()
        with socket.socket(fileno=os.dup(shared.descriptor)) as listening:
            self.family, address = listening.family, listening.getsockname()
        asked: list[bool] = []

        def has_enough() -> bool:
            asked.append(listener.accepting)
            return True

        listener, hop = self.listener(shared.descriptor, has_enough)
        for _ in range(3):
            self.connect(address)
        while not asked:
            await deferLater(reactor, 0)
        self.assertEqual((listener.connections, listener.accepting), (0, True))
        while listener.connections < 3:
            await deferLater(reactor, 0.001)
        self.assertEqual(asked, [True])
        shared.close()
        for client in self.clients:
            client.close()
        await self.ended(Deferred.fromCoroutine(listener.stop(1.0)), hop)

    async def test_pause(self) -> None:
        """A place that pauses for want of descriptors, just when it looks at the queue again, is not woken by that."""
        shared = self.shared = SharedSocket(
            Server(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), "there", "hop")
        )
        shared.open()
        port: Any = await InheritedEndpoint(reactor, os.dup(shared.descriptor)).listen(self.factories[0])
        self.ports.append(port)

        def pause() -> None:
            port.stopReading()
            port.leaves = True
            raise BlockingIOError(errno.EAGAIN, "nothing")

        accepting: Any = port.socket
        port.socket = SimpleNamespace(accept=pause, close=accepting.close)
        port._look_again()
        self.assertNotIn(port, reactor.getReaders())

    async def test_vsock(self) -> None:
        """A vsock socket is taken for one, and accepted connections have vsock's addresses and ways."""
        kernel = FakeKernel()
        made = kernel.socket()
        made.bind((1, 5001))
        made.listen(5)
        self.patch(socket, "AF_VSOCK", made.family + 0)
        self.patch(socket, "socket", lambda fileno: made)
        factory = self.factories[0]
        self.ports.append(await InheritedEndpoint(reactor, made.fileno()).listen(factory))
        self.assertEqual(str(self.ports[0].getHost()), "vsock:1:5001")


class RefusalTests(TestCase):
    """What is no listening socket."""

    async def test_no_socket(self) -> None:
        """It fails, as a listener that cannot listen."""
        with self.assertRaises(OSError), open("/dev/null", "rb") as null:
            await InheritedEndpoint(reactor, os.dup(null.fileno())).listen(Counting())
