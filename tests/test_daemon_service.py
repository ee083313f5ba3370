"""A daemon's life: listening, the watchdog, draining in order, the last words. Signals: see `test_load`."""

from __future__ import annotations

import gc
import io
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import Application
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.daemon import service as daemon_module
from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.instruments import Instruments
from tests.wire import GET, OneHop, Wire


class Told(Notifier):
    """A service manager that records."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[str] = []

    def _send(self, *assignments: str) -> None:
        self.messages += assignments


class FakeSocket:
    """A listening socket, which needs no closing."""

    def close(self) -> None:
        """Close."""


class FakePort:
    """A listening port."""

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
        self.patch(daemon_module, "_end_process_with", self.statuses.append)

    def start(self) -> None:
        self.daemon.privilegedStartService()
        self.daemon.startService()
        if not self.reactor.running:
            self.reactor.run()

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
        self.assertEqual(self.told.messages, [], "the reactor does not run yet: a signal would not be taken")
        self.reactor.run()
        self.assertEqual(self.told.messages[0], "READY=1")
        self.assertIn("place 0 (0), place 1 (0)", self.told.messages[1])

    def test_watchdog(self) -> None:
        """The watchdog hears of it each second while the reactor turns and every listener accepts, and only then."""
        self.start()
        self.told.messages.clear()
        accepting = True
        self.patch(ListeningPlace, "accepting", property(lambda listener: accepting))
        self.reactor.advance(1.0)
        self.reactor.advance(1.0)
        self.assertEqual(self.told.messages.count("WATCHDOG=1"), 2)
        accepting = False
        self.reactor.advance(1.0)
        self.assertEqual(self.told.messages.count("WATCHDOG=1"), 2)

    def test_told_how_long(self) -> None:
        """The service manager is told how long the drain may take: TimeoutStopSec= may be shorter."""
        self.daemon.stopService()
        self.assertIn("EXTEND_TIMEOUT_USEC=25000000", self.told.messages)

    def test_status_while_draining(self) -> None:
        """The service manager is told that the daemon drains, by each beat too, and how many connections there are."""
        self.start()
        self.client(0).receive(GET)
        self.told.messages.clear()
        stopping = self.daemon.stopService()
        self.reactor.advance(1.0)
        status = "STATUS=draining (connections): place 0 (1), place 1 (0)"
        self.assertEqual(
            [one for one in self.told.messages if one != "WATCHDOG=1"],
            ["STOPPING=1", status, "EXTEND_TIMEOUT_USEC=25000000", status],
        )
        self.hops[0].pass_time(10.1)
        self.last_word.callback(None)
        self.successResultOf(stopping)

    def test_status_after_a_reload(self) -> None:
        """That a reload failed is told, by each beat too, until one succeeds."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(gc, "freeze", lambda: None)
        self.reactor.callFromThread = lambda call, *arguments: call(*arguments)
        self.daemon.setServiceParent(Application("test"))
        self.reactor.run()
        self.start()
        failed, listening = "STATUS=the configuration was not reloaded; see the log", self.told.messages[1]
        for successful, status in ((False, failed), (True, listening)):
            self.daemon.reload = partial(bool, successful)
            self.told.messages.clear()
            handlers[signal.SIGHUP](signal.SIGHUP, None)
            self.reactor.advance(1.0)
            told = [one for one in self.told.messages if one.startswith(("STATUS", "READY"))]
            self.assertEqual(told, ["READY=1", status, status])

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

    def test_delay(self) -> None:
        """Told to stop, it says so at once and serves on for the delay; the drain has all of its time after that."""
        stops: list[None] = []
        self.daemon = self.another(at_stop=lambda: stops.append(None), delay=lambda: 5.0)
        self.start()
        self.client(0).receive(GET)
        self.told.messages.clear()
        stopping = self.daemon.stopService()
        self.assertEqual(len(stops), 1)
        self.assertIn("EXTEND_TIMEOUT_USEC=30000000", self.told.messages)
        self.reactor.advance(4.9)
        self.assertEqual(self.endpoints[0].port.done, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.endpoints[0].port.done, ["accept", "close"])
        self.hops[0].pass_time(9.9)
        self.assertNoResult(stopping)
        self.hops[0].pass_time(0.2)
        self.assertFalse(self.successResultOf(stopping))

    def test_delay_cut_short(self) -> None:
        """The second signal ends the delay, and every connection."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(gc, "freeze", lambda: None)
        self.daemon = self.another(delay=lambda: 3600.0)
        self.reactor.callFromThread = lambda call, *arguments: call(*arguments)
        self.daemon.setServiceParent(self.application())
        self.reactor.run()
        self.start()
        client = self.client(0)
        client.receive(GET)
        stopping = self.daemon.stopService()
        self.reactor.stop = self.not_running
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        client.settle()
        self.assertTrue(client.aborted)
        for hop in self.hops:
            hop.pass_time(0.2)
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.getTime() > 100], [])

    @staticmethod
    def not_running() -> None:
        """The reactor is being stopped already."""
        raise ReactorNotRunning

    def test_ready_later(self) -> None:
        """It is ready when what it starts is; until then it says nothing, and then also what it is about."""
        starting: Deferred[None] = Deferred()
        self.daemon = self.another(at_start=lambda: starting, about="2 workers, ")
        self.start()
        self.assertEqual(self.told.messages, [])
        starting.callback(None)
        self.assertEqual(self.told.messages[0], "READY=1")
        self.assertTrue(self.told.messages[1].startswith("STATUS=2 workers, listening on"))

    def test_cannot_start(self) -> None:
        """When that cannot be, it says why in a line and ends with status 1."""
        starting: Deferred[None] = Deferred()
        self.daemon = self.another(at_start=lambda: starting)
        said = io.StringIO()
        self.patch(sys, "__stderr__", said)
        self.start()
        starting.errback(ValueError("worker 1 cannot start"))
        self.assertEqual((said.getvalue(), self.statuses), ("worker 1 cannot start\n", [1]))
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.told.messages, [])

    def test_reload(self) -> None:
        """SIGHUP: the service manager hears when it begins and when it is over, also if that takes a while."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.daemon.setServiceParent(self.application())
        self.reactor.run()
        self.start()
        self.told.messages.clear()
        self.reactor.callFromThread = lambda call: self.reactor.callLater(0, call)
        reloading: Deferred[bool] = Deferred()
        self.daemon.reload = lambda: reloading
        handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.reactor.advance(0)
        self.assertEqual(self.told.messages[0], "RELOADING=1")
        self.assertNotIn("READY=1", self.told.messages)
        reloading.callback(False)
        self.assertEqual(self.told.messages[-2:], ["READY=1", "STATUS=the configuration was not reloaded; see the log"])

    def hang_up(self) -> Callable[[], None]:
        """Run the daemon as twistd does; returns what sends it SIGHUP."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(gc, "freeze", lambda: None)
        self.reactor.callFromThread = lambda call, *arguments: call(*arguments)
        self.daemon.setServiceParent(self.application())
        self.reactor.run()
        return lambda: handlers[signal.SIGHUP](signal.SIGHUP, None)

    def test_reload_that_raises(self) -> None:
        """A reload that fails with an exception, at once or later, is logged, counts as failed, and does not leave the
        service manager waiting for its end (K6)."""
        hang_up = self.hang_up()
        self.start()

        def fail() -> bool:
            raise ZeroDivisionError

        later: Deferred[bool] = Deferred()
        for reload in (fail, lambda: later):
            self.daemon.reload = reload
            self.told.messages.clear()
            hang_up()
            if reload is not fail:
                later.errback(ZeroDivisionError())
            status = "STATUS=the configuration was not reloaded; see the log"
            self.assertEqual((self.told.messages[0], self.told.messages[-2:]), ("RELOADING=1", ["READY=1", status]))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reload_twice(self) -> None:
        """SIGHUP during a reload leads to one more when that is over, and only then is the daemon ready."""
        hang_up = self.hang_up()
        self.start()
        reloads: list[Deferred[bool]] = []

        def reload() -> Deferred[bool]:
            reloads.append(Deferred())
            return reloads[-1]

        self.daemon.reload = reload
        self.told.messages.clear()
        for _ in range(3):
            hang_up()
        self.assertEqual(len(reloads), 1)
        reloads[0].callback(False)
        self.assertEqual(len(reloads), 2)
        self.assertNotIn("READY=1", self.told.messages)
        reloads[1].callback(True)
        self.assertEqual((len(reloads), self.told.messages.count("READY=1")), (2, 1))
        self.assertIn("listening on", self.told.messages[-1])

    def test_reload_before_ready(self) -> None:
        """SIGHUP while workers start does not make the daemon ready."""
        starting: Deferred[None] = Deferred()
        self.daemon = self.another(at_start=lambda: starting)
        hang_up = self.hang_up()
        self.start()
        hang_up()
        self.assertEqual(self.told.messages, [])
        starting.callback(None)
        self.assertEqual(self.told.messages[0], "READY=1")

    def test_reload_while_draining(self) -> None:
        """SIGHUP during the drain changes nothing, and the service manager goes on waiting for the end."""
        hang_up = self.hang_up()
        self.start()
        client = self.client(0)
        client.receive(GET)
        self.daemon.stopService()
        self.told.messages.clear()
        self.daemon.reload = partial(self.fail, "reloaded")
        hang_up()
        self.assertEqual(self.told.messages, [])
        self.last_word.callback(None)
        self.hops[0].pass_time(10.1)

    def test_stopped_while_starting(self) -> None:
        """A daemon that is stopped before its workers are up says neither that it is ready nor that it cannot start."""
        for outcome in (None, ValueError("worker 1 cannot start")):
            starting: Deferred[None] = Deferred()
            self.daemon = self.another(at_start=partial(lambda starting: starting, starting))
            said = io.StringIO()
            self.patch(sys, "__stderr__", said)
            self.start()
            self.daemon.stopService()
            self.told.messages.clear()
            starting.callback(None) if outcome is None else starting.errback(outcome)
            self.assertEqual((self.told.messages, said.getvalue(), self.statuses), ([], "", []))

    def test_give_up(self) -> None:
        """A daemon that cannot go on drains and ends with status 1."""
        self.start()
        self.daemon.give_up()
        self.assertEqual((self.statuses, self.reactor.hasStopped), ([1], True))

    def test_takes_no_signals(self) -> None:
        """A process that its supervisor tells what to do ignores the signals that go to a whole process
        group."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.daemon = self.another(takes_signals=False)
        self.daemon.setServiceParent(self.application())
        self.reactor.run()
        self.assertEqual(handlers, dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal.SIG_IGN))

    @staticmethod
    def application() -> Any:
        """What twistd makes."""
        application: Any = Application("test")
        application.setComponent(ILogObserver, lambda event: None)
        return application

    def test_told_twice(self) -> None:
        """Told to stop once more, the daemon ends at once, with status 1 as that broke a request off."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(gc, "freeze", lambda: None)
        self.reactor.callFromThread = lambda call, *arguments: call(*arguments)
        self.daemon.setServiceParent(Application("test"))
        self.reactor.run()
        self.start()
        client = self.client(0)
        client.receive(GET)
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        stopping = self.daemon.stopService()
        self.last_word.callback(None)

        def stop() -> None:
            raise ReactorNotRunning

        self.patch(self.reactor, "stop", stop)
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertTrue(client.aborted)
        client.settle()
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual(self.statuses, [1])

    @staticmethod
    def parent() -> Any:
        from twisted.application.service import MultiService

        return MultiService()
