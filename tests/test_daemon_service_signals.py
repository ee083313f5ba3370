"""A daemon's signals: SIGHUP reloads, a second SIGTERM ends it at once, a worker takes none."""

from __future__ import annotations

import signal
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning

from tests.daemons import DaemonCase
from tests.wire import GET


class SignalTests(DaemonCase):
    """The handlers that twistd installs for it."""

    def test_status_after_a_reload(self) -> None:
        """That a reload failed is told, by each beat too, until one succeeds."""
        handlers = self.handlers()
        self.start()
        failed, listening = "STATUS=the configuration was not reloaded; see the log", self.told.messages[1]
        for successful, status in ((False, failed), (True, listening)):
            self.daemon.reload = partial(bool, successful)
            self.told.messages.clear()
            handlers[signal.SIGHUP](signal.SIGHUP, None)
            self.reactor.advance(1.0)
            told = [one for one in self.told.messages if one.startswith(("STATUS", "READY"))]
            self.assertEqual(told, ["READY=1", status, status])

    def test_reload(self) -> None:
        """SIGHUP: the service manager hears when it begins and when it is over, also if that takes a while."""
        handlers = self.handlers()
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

    def test_reload_that_raises(self) -> None:
        """A reload that fails with an exception, at once or later, is logged, counts as failed, and does not leave the
        service manager waiting for its end (K6)."""
        handlers = self.handlers()
        self.start()

        def fail() -> bool:
            raise ZeroDivisionError

        later: Deferred[bool] = Deferred()
        for reload in (fail, lambda: later):
            self.daemon.reload = reload
            self.told.messages.clear()
            handlers[signal.SIGHUP](signal.SIGHUP, None)
            if reload is not fail:
                later.errback(ZeroDivisionError())
            status = "STATUS=the configuration was not reloaded; see the log"
            self.assertEqual((self.told.messages[0], self.told.messages[-2:]), ("RELOADING=1", ["READY=1", status]))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reload_twice(self) -> None:
        """SIGHUP during a reload leads to one more when that is over, and only then is the daemon ready."""
        handlers = self.handlers()
        self.start()
        reloads: list[Deferred[bool]] = []

        def reload() -> Deferred[bool]:
            reloads.append(Deferred())
            return reloads[-1]

        self.daemon.reload = reload
        self.told.messages.clear()
        for _ in range(3):
            handlers[signal.SIGHUP](signal.SIGHUP, None)
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
        handlers = self.handlers()
        self.start()
        handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(self.told.messages, [])
        starting.callback(None)
        self.assertEqual(self.told.messages[0], "READY=1")

    def test_reload_while_draining(self) -> None:
        """SIGHUP during the drain changes nothing, and the service manager goes on waiting for the end."""
        handlers = self.handlers()
        self.start()
        client = self.client(0)
        client.receive(GET)
        self.daemon.stopService()
        self.told.messages.clear()
        self.daemon.reload = partial(self.fail, "reloaded")
        handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(self.told.messages, [])
        self.last_word.callback(None)
        self.hops[0].pass_time(10.1)

    def test_takes_no_signals(self) -> None:
        """A process that its supervisor tells what to do ignores the signals that go to a whole process
        group."""
        self.daemon = self.another(takes_signals=False)
        handlers = self.handlers()
        self.assertEqual(handlers, dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal.SIG_IGN))

    def test_told_twice(self) -> None:
        """Told to stop once more, the daemon ends at once, with status 1 as that broke a request off."""
        handlers = self.handlers()
        self.start()
        client = self.client(0)
        client.receive(GET)
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        stopping = self.daemon.stopService()
        self.last_word.callback(None)
        self.patch(self.reactor, "stop", self.not_running)
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertTrue(client.aborted)
        client.settle()
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual(self.statuses, [1])

    def test_delay_cut_short(self) -> None:
        """The second signal ends the delay, and every connection."""
        self.daemon = self.another(delay=lambda: 3600.0)
        handlers = self.handlers()
        self.start()
        client = self.client(0)
        client.receive(GET)
        stopping = self.daemon.stopService()
        self.patch(self.reactor, "stop", self.not_running)
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
