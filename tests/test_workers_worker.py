"""A worker's part: what it is given, what it answers, and what it shows for all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy import __version__
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import Metrics
from nitroproxy.telemetry.packing import pack
from nitroproxy.workers.channel import Answerer, Channel, NoAnswer
from nitroproxy.workers.worker import AllWorkers, WorkerStart, WrongVersion
from tests.pair import FakeWorker, Pair, values

START = WorkerStart(b'{"a": 1}', 4, ["127.0.0.1:8080", "vsock port 5001"], b"key")


class WorkerStartTests(SynchronousTestCase):
    """The first message."""

    def test_travel(self) -> None:
        """What is sent is what is read."""
        self.assertEqual(WorkerStart.read(START.to_bytes()), START)

    def test_secret(self) -> None:
        """What is shared may be secret: it is not in the message's text, which a traceback may show."""
        start = WorkerStart(b"{}", 1, [], b"key", b"a secret")
        self.assertEqual(WorkerStart.read(start.to_bytes()).shared, b"a secret")
        self.assertNotIn("secret", f"{start!r} {start}")

    def test_other_version(self) -> None:
        """A supervisor of another version, whatever its first message looks like, is an error that says what to do
        (K6)."""
        fields = msgspec.to_builtins(START)
        for version, message in (
            ("9.9", {**fields, "version": "9.9"}),
            ("9.9", {"version": "9.9", "something": "else"}),
            ("another version", {**fields, "count": "four"}),
            ("another version", ["no", "map"]),
        ):
            error = self.assertRaises(WrongVersion, WorkerStart.read, msgspec.msgpack.encode(message))
            self.assertIn(f"the supervisor runs {version} and this worker {__version__}: restart", str(error))
        self.assertRaises(WrongVersion, WorkerStart.read, b"\xc1")


class WorkerTests(SynchronousTestCase):
    """What the supervisor asks."""

    def setUp(self) -> None:
        self.worker = FakeWorker(Clock(), 1, START, {})

    def ask(self, what: str, about: object = None) -> Any:
        answer = self.worker.supervisors.ask(what, about)
        self.worker.pair.carry()
        return self.successResultOf(answer)

    def test_state(self) -> None:
        """By place: whether it accepts, and how many connections are open."""
        self.worker.places[1].accepting = False
        self.assertEqual(self.ask("state"), {"accepting": [True, False], "connections": [3, 3]})

    def test_orders(self) -> None:
        """It stops and aborts a place, and ends."""
        self.assertTrue(self.ask("stop", [1, 9.0]))
        self.ask("abort", 0)
        self.ask("take", b"shared")
        self.ask("end")
        self.assertEqual(self.worker.taken, [b"shared"])
        self.assertEqual([place.done for place in self.worker.places], [["abort"], [9.0]])
        self.assertTrue(self.worker.ended)

    def test_reload(self) -> None:
        """What it has prepared it puts in force, once; what it cannot use it says."""
        self.assertEqual(self.ask("prepare", b"new"), "")
        self.assertEqual(self.worker.reloaded, [])
        self.ask("commit")
        self.worker.refuses = "tls.ca_file: holds no certificate"
        self.assertEqual(self.ask("prepare", b"newer"), self.worker.refuses)
        self.assertEqual(self.worker.reloaded, [b"new"])

    def test_nothing_prepared(self) -> None:
        """There is nothing to put in force after a refusal, or when it has been told to forget: it does not say that it
        has."""
        for forgotten in (None, b"bad"):
            self.assertEqual(self.ask("prepare", b"new"), "")
            self.worker.refuses = "bad" if forgotten else ""
            self.ask("prepare", forgotten)
            committing = self.worker.supervisors.ask("commit")
            self.worker.pair.carry()
            self.failureResultOf(committing, NoAnswer)
            self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assertEqual(self.worker.reloaded, [])


class AllWorkersTests(SynchronousTestCase):
    """The pages of a worker."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.up = {"1": True, "2": True}
        others = [FakeWorker(self.clock, number, START, {}) for number in (1, 2)]

        async def workers(about: Any) -> Any:
            return self.up

        async def metrics(about: Any) -> Any:
            others[1].count = 40
            return [pack(worker.own()) for worker in others]

        answerers: Mapping[str, Answerer] = {"workers": workers, "metrics": metrics}
        mine = Channel(self.clock, {}, lambda: None)
        self.pair = Pair(Channel(self.clock, answerers, lambda: None), mine)
        self.whole = AllWorkers(mine.ask, Metrics("enclave", "1", 1))

    def result(self, asked: Any, seconds: float = 0) -> Any:
        waiting = Deferred.fromCoroutine(asked)
        if seconds:
            self.clock.advance(seconds)
        else:
            self.pair.carry()
        return self.successResultOf(waiting)

    def test_check(self) -> None:
        """All workers answer; otherwise it is a warning that names those that do not: the others serve."""
        self.assertEqual(self.result(self.whole.check()), Check("pass", "2 answer"))
        self.up["2"] = False
        self.assertEqual(self.result(self.whole.check()), Check("warn", "of 2 workers these do not answer: 2"))

    def test_metrics(self) -> None:
        """They are those of all processes, from the supervisor, one family of a name."""
        families = self.result(self.whole.metrics())
        found = values(families)
        self.assertEqual(found["nitroproxy_requests_total", "1"], 0)
        self.assertEqual(found["nitroproxy_requests_total", "2"], 40)
        self.assertEqual(len({family.name for family in families}), len(families))

    def test_silent_supervisor(self) -> None:
        """A supervisor that does not answer is shown, with the role, and delays nothing for long."""
        families = self.result(self.whole.metrics(), 0.8)
        [up] = [family for family in families if family.name == "nitroproxy_worker_up"]
        self.assertEqual(
            [(one.labels, one.value) for one in up.samples], [({"role": "enclave", "worker": "supervisor"}, 0)]
        )
        self.assertIn(("nitroproxy_build_info", "1"), values(families))
        check = self.result(self.whole.check(), 0.8)
        self.assertEqual((check.status, check.output[:31]), ("warn", "the supervisor does not answer:"))
        asking = self.whole.ask_once("words", None)
        self.clock.advance(0.8)
        self.assertIsNone(self.successResultOf(asking))
