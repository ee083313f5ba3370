"""A worker's part: what it says of itself, and how it tells the whole. The rest: see `test_host_crew`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.totals import pack
from nitroproxy.workers.channel import Answerer, Channel
from nitroproxy.workers.worker import AllWorkers, WorkerStart
from tests.pair import FakeWorker, Pair, values


class OrdersTests(SynchronousTestCase):
    """The first message."""

    def test_travel(self) -> None:
        """What is told is what is read."""
        orders = WorkerStart(b'{"a": 1}', 4, ["127.0.0.1:8080", "vsock port 5001"], "0a0b")
        self.assertEqual(WorkerStart.read(orders.to_bytes()), orders)


class WholeTests(SynchronousTestCase):
    """The pages of a worker."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.up = {"1": True, "2": True}
        worker = FakeWorker(self.clock, 1, WorkerStart(b"", 1, [], ""), {})
        self.worker = worker

        async def workers(about: Any) -> Any:
            return self.up

        async def metrics(about: Any) -> Any:
            worker.count = 40
            return pack(worker.own())

        answerers: Mapping[str, Answerer] = {"workers": workers, "metrics": metrics}
        mine = Channel(self.clock, {}, lambda: None)
        self.pair = Pair(Channel(self.clock, answerers, lambda: None), mine)
        self.whole = AllWorkers(mine, worker.own)

    def result(self, asked: Any, seconds: float = 0) -> Any:
        waiting = Deferred.fromCoroutine(asked)
        if seconds:
            self.clock.advance(seconds)
        else:
            self.pair.carry()
        return self.successResultOf(waiting)

    def test_check(self) -> None:
        """All workers answer, or those that do not are named and it is a warning: the others serve."""
        self.assertEqual(self.result(self.whole.check()), Check("pass", "2 answer"))
        self.up["2"] = False
        self.assertEqual(self.result(self.whole.check()), Check("warn", "of 2 workers these do not answer: 2"))

    def test_metrics(self) -> None:
        """They are the supervisor's, of all."""
        self.assertEqual(values(self.result(self.whole.metrics()))["nitroproxy_requests_total", ""], 40)

    def test_silent_supervisor(self) -> None:
        """A supervisor that does not answer is shown, and delays nothing for long."""
        found = values(self.result(self.whole.metrics(), 0.8))
        self.assertEqual(found["nitroproxy_requests_total", ""], 0)
        self.assertEqual(found["nitroproxy_worker_up", "supervisor"], 0)
        check = self.result(self.whole.check(), 0.8)
        self.assertEqual((check.status, check.output[:31]), ("warn", "the supervisor does not answer:"))
