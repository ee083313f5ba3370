"""A daemon of two stages on a reactor that does what the test says, with a service manager that records."""

from __future__ import annotations

import gc
import signal
import socket
from typing import Any

from twisted.application.service import Application
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.daemon import service
from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.instruments import Instruments
from tests.wire import OneHop, Wire


class Told(Notifier):
    """A service manager that records."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[str] = []

    def _send(self, *assignments: str) -> None:
        self.messages += assignments


class FakeSocket:
    """A listening socket, which needs no closing."""

    family = socket.AF_UNIX

    def shutdown(self, how: int) -> None:
        """Let nobody in any more."""

    def close(self) -> None:
        """Close."""


class FakePort:
    """A listening port."""

    transport: Any = None

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.socket: Any = FakeSocket()
        self.connected = True
        self.done: list[str] = []

    def doRead(self) -> None:
        """Accept who waits."""
        self.done.append("accept")

    def connectionLost(self, reason: object) -> None:
        """Close."""
        self.done.append("close")
        self.connected = False
        self.socket.close()


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


class DaemonCase(SynchronousTestCase):
    """A case with such a daemon."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.hops = [OneHop(), OneHop()]
        self.factories = [
            DownstreamFactory(f"hop-{i}", hop, ListenerSettings(), hop.deadlines) for i, hop in enumerate(self.hops)
        ]
        self.endpoints = [FakeEndpoint(self.reactor) for _ in range(2)]
        self.listeners = [
            ListeningPlace(endpoint, f"place {i}", factory)
            for i, (endpoint, factory) in enumerate(zip(self.endpoints, self.factories, strict=True))
        ]
        self.told = Told()
        self.ended: list[str] = []
        self.last_word: Deferred[None] = Deferred()
        instruments = Instruments(self.reactor, "host", "1", level="INFO", form="text", access=False, output=1)
        self.daemon = Daemon(
            self.reactor,
            [[listener] for listener in self.listeners],
            instruments,
            self.told,
            lambda: 10.0,
            [lambda: self.ended.append("first"), lambda: self.last_word, lambda: self.ended.append("last")],
            lambda: True,
        )
        self.statuses: list[int] = []
        self.patch(service, "_end_process_with", self.statuses.append)

    def start(self) -> None:
        self.daemon.privilegedStartService()
        self.daemon.startService()
        if not self.reactor.running:
            self.reactor.run()

    def client(self, stage: int) -> Wire:
        protocol = self.factories[stage].buildProtocol(None)
        assert protocol is not None
        return Wire(protocol)

    def another(self, **options: Any) -> Daemon:
        """A daemon of these listeners, otherwise made."""
        instruments = Instruments(self.reactor, "host", "1", level="INFO", form="text", access=False, output=1)
        return Daemon(
            self.reactor,
            [[listener] for listener in self.listeners],
            instruments,
            self.told,
            lambda: 10.0,
            [],
            lambda: True,
            **options,
        )

    def handlers(self) -> dict[int, Any]:
        """Run the daemon as twistd does; what it has its signals handled by."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(gc, "freeze", lambda: None)
        self.reactor.callFromThread = lambda call, *arguments: call(*arguments)
        application: Any = Application("test")
        application.setComponent(ILogObserver, lambda event: None)
        self.daemon.setServiceParent(application)
        self.reactor.run()
        return handlers
