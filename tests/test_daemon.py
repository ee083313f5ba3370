"""A daemon's life: listening, the watchdog, draining in order, the last words. Signals: see `test_load`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy import daemon as daemon_module
from nitroproxy.daemon import Daemon, Listener
from nitroproxy.notify import Notifier
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.listening import ListenerSettings
from nitroproxy.telemetry.instruments import Instruments
from tests.wire import GET, OneHop, Wire


class Told(Notifier):
    """A service manager that remembers."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[str] = []

    def _send(self, *assignments: str) -> None:
        self.messages += assignments


class FakePort:
    """A listening port."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.connected = True
        self.done: list[str] = []

    def doRead(self) -> None:
        """Accept who waits."""
        self.done.append("accept")

    def connectionLost(self, reason: object) -> None:
        """Close."""
        self.done.append("close")
        self.connected = False


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """Listens at once."""

    def __init__(self, reactor: Any) -> None:
        self.port = FakePort(reactor)
        self.listening = False

    def listen(self, protocolFactory: object) -> Deferred[Any]:
        """Listen."""
        self.listening = True
        return succeed(self.port)


class DaemonTests(SynchronousTestCase):
    """Two listeners in two stages, on a reactor that does what the test says."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.hops = [OneHop(), OneHop()]
        self.factories = [
            DownstreamFactory(f"hop-{i}", hop, ListenerSettings(), hop.deadlines) for i, hop in enumerate(self.hops)
        ]
        self.endpoints = [FakeEndpoint(self.reactor) for _ in range(2)]
        self.listeners = [
            Listener(endpoint, f"place {i}", factory)
            for i, (endpoint, factory) in enumerate(zip(self.endpoints, self.factories, strict=True))
        ]
        self.told = Told()
        self.ended: list[str] = []
        self.last_word: Deferred[None] = Deferred()
        instruments = Instruments(self.reactor, "host", "1", level="INFO", form="text", access=False)
        self.daemon = Daemon(
            self.reactor,
            [[listener] for listener in self.listeners],
            instruments,
            self.told,
            lambda: 10.0,
            [lambda: self.ended.append("first"), lambda: self.last_word, lambda: self.ended.append("last")],
        )
        self.statuses: list[int] = []
        self.patch(daemon_module, "_end_process_with", self.statuses.append)

    def start(self) -> None:
        self.daemon.privilegedStartService()
        self.daemon.startService()

    def client(self, stage: int) -> Wire:
        protocol = self.factories[stage].buildProtocol(None)
        assert protocol is not None
        return Wire(protocol)

    def test_start(self) -> None:
        """It listens everywhere, then says that it is ready, and where it listens."""
        self.daemon.privilegedStartService()
        self.assertTrue(all(endpoint.listening for endpoint in self.endpoints))
        self.assertEqual(self.told.messages, [])
        self.daemon.startService()
        self.assertEqual(self.told.messages[0], "READY=1")
        self.assertIn("place 0 (0), place 1 (0)", self.told.messages[1])

    def test_watchdog(self) -> None:
        """The watchdog hears of it each second while the reactor turns and every listener accepts, and only then."""
        self.start()
        self.told.messages.clear()
        accepting = True
        self.patch(Listener, "accepting", property(lambda listener: accepting))
        self.reactor.advance(1.0)
        self.reactor.advance(1.0)
        self.assertEqual(self.told.messages.count("WATCHDOG=1"), 2)
        accepting = False
        self.reactor.advance(1.0)
        self.assertEqual(self.told.messages.count("WATCHDOG=1"), 2)

    def test_stages(self) -> None:
        """A stage stops when the one before has drained; then what was needed until then is put away, in order."""
        self.start()
        first, second = self.client(0), self.client(1)
        first.receive(GET)
        stopping = self.daemon.stopService()
        second.settle()
        self.assertFalse(second.closed, "a request of the first stage may still need the second")
        self.assertEqual([endpoint.port.done for endpoint in self.endpoints], [["accept", "close"], []])
        self.hops[0].endpoint.accept().receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        first.settle()
        self.hops[1].pass_time(0.1)
        second.settle()
        self.assertTrue(first.closed and second.closed)
        self.assertEqual(self.ended, ["first"])
        self.last_word.callback(None)
        self.assertTrue(self.successResultOf(stopping))
        self.assertEqual((self.ended, self.statuses), (["first", "last"], []))

    def test_timeout(self) -> None:
        """What is not drained in time is aborted, and the process ends with status 1."""
        self.daemon.setServiceParent(self.parent())
        self.start()
        client = self.client(0)
        client.receive(GET)
        stopping = self.daemon.stopService()
        self.last_word.callback(None)
        self.hops[0].pass_time(10.1)
        self.assertTrue(client.aborted)
        client.settle()
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual(self.statuses, [1])

    @staticmethod
    def parent() -> Any:
        from twisted.application.service import MultiService

        return MultiService()
