"""A daemon's life: listening, the watchdog, draining in order, the last words. Its signals:
`test_daemon_service_signals`, and with processes `test_load`."""

from __future__ import annotations

import io
import sys
from functools import partial

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail

from nitroproxy.daemon.place import ListeningPlace
from tests.daemons import DaemonCase
from tests.wire import GET


class DaemonTests(DaemonCase):
    """Two listeners in two stages, on a reactor that does what the test says."""

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
        self.daemon.setServiceParent(MultiService())
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

    def test_failures_at_the_end(self) -> None:
        """An exception at the end, at once or later, of a place or of what is put away after them, is logged; the rest
        is done all the same, and the process ends with status 1."""

        def raising() -> None:
            raise ZeroDivisionError

        async def broken(timeout: float) -> bool:
            raise ZeroDivisionError

        self.daemon._at_end = [raising, lambda: fail(ZeroDivisionError()), lambda: self.ended.append("last")]
        self.daemon.setServiceParent(MultiService())
        self.start()
        self.patch(self.listeners[0], "stop", broken)
        stopping = self.daemon.stopService()
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual((self.ended, self.statuses), (["last"], [1]))
        self.assertEqual([endpoint.port.done for endpoint in self.endpoints], [[], ["accept", "close"]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
