"""The look at the whole stack again and again."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.monitor import FRESH, Monitor
from nitroproxy.proxy.deadlines import TICK, Deadlines
from nitroproxy.telemetry.health import Check, Health
from nitroproxy.telemetry.samples import INTERVAL


class MonitorTests(SynchronousTestCase):
    """Looks, on a clock that the test advances."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.examining: list[Deferred[Health]] = []
        self.collecting: list[Deferred[Sequence[Metric]]] = []
        self.monitor = Monitor(self.examine, self.collect, self.deadlines)

    async def examine(self) -> Health:
        asked: Deferred[Health] = Deferred()
        self.examining.append(asked)
        return await asked

    async def collect(self) -> Sequence[Metric]:
        asked: Deferred[Sequence[Metric]] = Deferred()
        self.collecting.append(asked)
        return await asked

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)

    def answer(self, **checks: Check) -> None:
        self.collecting[-1].callback([])
        self.examining[-1].callback(Health("x", "1", checks))

    def status(self, layer: str) -> str:
        [found] = [state.status for state in self.monitor.states.tell() if state.layer == layer]
        return found

    def test_looks(self) -> None:
        """It looks as soon as the reactor runs, then every few seconds."""
        self.assertEqual(self.examining, [])
        self.pass_time(2 * TICK)
        self.answer(host=Check("pass"), enclave=Check("fail"))
        self.assertEqual((self.status("host"), self.status("enclave")), ("pass", "fail"))
        self.pass_time(INTERVAL + TICK)
        self.answer(host=Check("pass"), enclave=Check("pass"))
        self.assertEqual((len(self.examining), self.status("enclave")), (2, "pass"))

    def test_failure(self) -> None:
        """A look that fails, or takes long, is not the last one."""
        self.pass_time(2 * TICK)
        self.examining[0].errback(ValueError())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.pass_time(INTERVAL + TICK)
        self.pass_time(INTERVAL + TICK)
        self.assertEqual(len(self.examining), 3)

    def test_asked(self) -> None:
        """Who asks is told of a look that is at most a second old; all who ask at a time wait for one look."""
        self.pass_time(2 * TICK)
        self.answer(enclave=Check("fail"))
        self.assertTrue(self.monitor.look().called)
        self.pass_time(FRESH + TICK)
        first, second = self.monitor.look(), self.monitor.look()
        self.assertEqual((len(self.examining), first.called), (2, False))
        self.answer(enclave=Check("pass"))
        self.assertEqual((first.called, second.called, self.status("enclave")), (True, True, "pass"))

    def test_asked_in_vain(self) -> None:
        """A look that fails keeps nobody waiting, and the next who asks has another."""
        first = self.monitor.look()
        self.examining[-1].errback(ValueError())
        self.assertEqual((first.called, len(self.flushLoggedErrors(ValueError))), (True, 1))
        self.monitor.look()
        self.assertEqual(len(self.examining), 2)

    def test_end(self) -> None:
        """It ends with the deadlines."""
        self.pass_time(2 * TICK)
        self.deadlines.stop()
        self.pass_time(3 * INTERVAL)
        self.assertEqual((len(self.examining), self.clock.getDelayedCalls()), (1, []))
