"""The supervisor: workers started, asked, looked after, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.logs import EventLog
from nitroproxy.telemetry.metrics import Metrics
from nitroproxy.workers.supervisor import CannotStart, SharedPlace, Supervisor
from nitroproxy.workers.worker import WorkerStart
from tests.pair import FakeLaunch, FakeWorker, values


class CrewTests(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.launch = FakeLaunch(self.clock)
        self.metrics = Metrics("host", "1")
        self.configuration = b"{}"
        self.crew = Supervisor(
            self.clock, self.launch, 2, lambda: WorkerStart(self.configuration, 2, ["a", "b"], "tag"), self.metrics
        )
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.starting = self.crew.start()

    def up(self) -> None:
        self.launch.carry()
        self.successResultOf(self.starting)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            self.launch.carry()

    def done(self, answer: Any) -> Any:
        result = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        self.launch.carry()
        return self.successResultOf(result)

    def worker(self, number: int) -> FakeWorker:
        return self.launch.workers[number]

    def told(self, event: str) -> list[object]:
        return [found["worker"] for found in self.events if found["event"] == event]

    def test_start(self) -> None:
        """The daemon is ready when the last worker is there; each has its orders."""
        self.worker(1).pair.carry()
        self.assertNoResult(self.starting)
        self.up()
        self.assertEqual(self.launch.started, [1, 2])
        self.assertEqual(self.worker(2).orders, WorkerStart(b"{}", 2, ["a", "b"], "tag"))
        self.assertEqual(self.told("worker_started"), [1, 2])

    def test_cannot_start(self) -> None:
        """A worker that ends before the daemon is ready ends it, and is named."""
        self.launch.die(2, "ended with status 1")
        failure = self.failureResultOf(self.starting, CannotStart)
        self.assertEqual(str(failure.value), "nitroproxy-host: worker 2 cannot start: it ended with status 1")

    def test_restart(self) -> None:
        """A worker that dies is started again, with what is in force then; each time later if it dies at once."""
        self.up()
        self.configuration = b"newer"
        self.launch.die(1)
        self.assertEqual(self.told("worker_ended"), [1])
        self.pass_time(0.2)
        self.assertEqual(self.launch.started, [1, 2, 1])
        self.assertEqual(self.worker(1).orders.configuration, b"newer")
        self.launch.die(1)
        self.pass_time(0.1)
        self.assertEqual(len(self.launch.started), 3)
        self.pass_time(0.2)
        self.assertEqual(len(self.launch.started), 4)
        for _ in range(10):
            self.launch.die(1)
            self.pass_time(5.1)
        self.assertEqual(len(self.launch.started), 14, "but never later than in 5 seconds")
        self.pass_time(11)
        self.launch.die(1)
        self.pass_time(0.2)
        self.assertEqual(len(self.launch.started), 15, "one that has lived is started again at once")
        self.assertEqual(values(self.done(self.crew.metrics()))["nitroproxy_worker_restarts_total", "1"], 13)

    def test_totals(self) -> None:
        """What the workers count is added up, what is of a process is told apart, and what is the same stands once."""
        self.up()
        self.worker(1).count, self.worker(2).count = 5, 7
        found = values(self.done(self.crew.metrics()))
        self.assertEqual(found["nitroproxy_requests_total", ""], 12)
        self.assertEqual(found["nitroproxy_connections_open", ""], 4)
        self.assertEqual(found["nitroproxy_build_info", ""], 1)
        self.assertIn(("process_cpu_seconds_total", "supervisor"), found)
        for name in ("1", "2", "supervisor"):
            self.assertEqual(found["nitroproxy_worker_up", name], 1)

    def test_silent_worker(self) -> None:
        """A worker that does not answer is a metric and delays the others by half a second; its counts stay."""
        self.up()
        self.worker(1).count, self.worker(2).count = 5, 7
        self.done(self.crew.metrics())
        self.worker(2).pair.stuck = True
        asked = Deferred.fromCoroutine(self.crew.metrics())
        self.launch.carry()
        self.assertNoResult(asked)
        self.pass_time(0.6)
        metrics: Any = asked.result
        found = values(metrics)
        self.assertEqual((found["nitroproxy_worker_up", "1"], found["nitroproxy_worker_up", "2"]), (1, 0))
        self.assertEqual(found["nitroproxy_requests_total", ""], 12)
        self.assertEqual(found["nitroproxy_connections_open", ""], 2)

    def test_counts_outlive_their_worker(self) -> None:
        """A total does not go down when a worker dies and begins at nothing."""
        self.up()
        self.worker(1).count, self.worker(2).count = 5, 7
        self.done(self.crew.metrics())
        self.launch.die(2)
        self.assertEqual(values(self.done(self.crew.metrics()))["nitroproxy_requests_total", ""], 12)
        self.pass_time(0.2)
        self.worker(2).count = 1
        self.assertEqual(values(self.done(self.crew.metrics()))["nitroproxy_requests_total", ""], 13)

    def test_asked_by_a_worker(self) -> None:
        """A worker has the whole picture from the supervisor: who answers, and what all count."""
        self.up()
        workers = self.worker(1).mine.ask("workers")
        metrics = self.worker(1).mine.ask("metrics")
        self.launch.carry()
        self.assertEqual(self.successResultOf(workers), {"1": True, "2": True})
        self.assertIsInstance(self.successResultOf(metrics), bytes)

    def test_accepting(self) -> None:
        """The daemon accepts while each worker that runs answers and accepts; one that is being started again counts
        when it is there."""
        self.assertFalse(self.crew.accepting(0))
        self.up()
        self.assertTrue(self.crew.accepting(0))
        self.worker(1).places[0].accepting = False
        self.pass_time(1.1)
        self.assertEqual((self.crew.accepting(0), self.crew.accepting(1)), (False, True))
        self.worker(1).places[0].accepting = True
        self.pass_time(1.1)
        self.worker(2).pair.stuck = True
        self.pass_time(5)
        self.assertFalse(self.crew.accepting(0), "it does not answer")
        self.launch.die(2)
        self.assertTrue(self.crew.accepting(0))

    def test_connections(self) -> None:
        """Those of all workers are added up."""
        self.up()
        self.assertEqual(self.crew.connections(0), 6)

    def test_reload(self) -> None:
        """A configuration goes to all; who cannot take it fails it, and who does not answer is named."""
        self.up()
        self.assertTrue(self.done(self.crew.reload(b"new")))
        self.assertEqual([self.worker(number).reloaded for number in (1, 2)], [[b"new"], [b"new"]])
        self.worker(2).takes = False
        self.assertFalse(self.done(self.crew.reload(b"newer")))
        self.worker(2).pair.stuck = True
        reloading = Deferred.fromCoroutine(self.crew.reload(b"newest"))
        self.pass_time(3.1)
        self.assertFalse(self.successResultOf(reloading))
        self.assertEqual(self.told("reload_failed"), [2])
        self.launch.die(2)
        self.assertTrue(self.done(self.crew.reload(b"last")), "one that is started again begins with it")

    def test_stop(self) -> None:
        """A place stops everywhere, and is complete when it is with all; nobody is started again after that."""
        self.up()
        self.assertTrue(self.done(self.crew.stop(0, 9.0)))
        self.assertEqual([self.worker(number).places[0].done for number in (1, 2)], [[9.0], [9.0]])
        self.worker(1).places[1].complete = False
        self.assertFalse(self.done(self.crew.stop(1, 9.0)))
        self.launch.die(2)
        self.pass_time(10)
        self.assertEqual(self.launch.started, [1, 2])

    def test_died_while_draining(self) -> None:
        """A worker that dies meanwhile has not drained."""
        self.up()
        self.worker(2).pair.stuck = True
        stopping = Deferred.fromCoroutine(self.crew.stop(0, 9.0))
        self.launch.carry()
        self.launch.die(2)
        self.assertFalse(self.successResultOf(stopping))

    def test_end(self) -> None:
        """All are told to end, and waited for; who does not is cut off, which kills it."""
        self.up()
        self.worker(2).pair.stuck = True
        ending = self.crew.end()
        self.launch.carry()
        self.assertTrue(self.worker(1).ended)
        self.launch.die(1, "ended with status 0")
        self.assertNoResult(ending)
        self.pass_time(3.1)
        self.assertTrue(self.worker(2).pair.ends[0].disconnecting)
        self.launch.die(2)
        self.successResultOf(ending)
        self.assertEqual(self.told("worker_ended"), [])


class FakeSocket:
    """A shared socket."""

    name = "there"

    def __init__(self) -> None:
        self.done: list[str] = []

    def open(self) -> None:
        """Listen."""
        self.done.append("open")

    def close(self) -> None:
        """Let go."""
        self.done.append("close")


class SharedPlaceTests(SynchronousTestCase):
    """A place at which workers accept."""

    def test_order(self) -> None:
        """The supervisor lets go of the socket before any worker is told to: the last to let go serves who waits."""
        clock = Clock()
        launch = FakeLaunch(clock)
        crew = Supervisor(clock, launch, 1, lambda: WorkerStart(b"", 1, [], ""), Metrics("host", "1"))
        socket = FakeSocket()
        place = SharedPlace(socket, crew, 1)
        place.listen()
        crew.start()
        launch.carry()
        self.assertEqual((place.name, place.accepting, place.connections), ("there", True, 3))
        stopping = Deferred.fromCoroutine(place.stop(4.0))
        self.assertEqual((socket.done, launch.workers[1].places[1].done), (["open", "close"], []))
        place.abort()
        launch.carry()
        self.assertTrue(self.successResultOf(stopping))
        self.assertEqual(launch.workers[1].places[1].done, [4.0, "abort"])
