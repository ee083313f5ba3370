"""One worker: its process watched, killed when it hangs, replaced when it has ended."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.logs import EventLog
from nitroproxy.workers.channel import Channel
from nitroproxy.workers.worker import WorkerStart
from nitroproxy.workers.worker_process import HUNG, START, WorkerProcess
from tests.pair import FakeSpawn, FakeWorker


class WorkerProcessTests(SynchronousTestCase):
    """A worker whose watcher starts it again each time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawn = FakeSpawn(self.clock)
        self.seen: list[str] = []
        self.delays: list[float] = []
        self.process = WorkerProcess(self.clock, 1, self.spawn_one, self)
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def spawn_one(self, process: WorkerProcess, ended: Callable[[str], object]) -> Channel:
        return self.spawn(process.number, WorkerStart(b"", 1, [], b""), {}, ended)

    def worker_up(self, worker: WorkerProcess) -> None:
        self.seen.append("up")

    def worker_silent(self, worker: WorkerProcess) -> None:
        self.seen.append("silent")

    def worker_ended(self, worker: WorkerProcess, how: str) -> None:
        self.seen.append(how)
        self.delays.append(worker.restart())

    @property
    def fake(self) -> FakeWorker:
        return self.spawn.workers[1]

    @property
    def killed(self) -> bool:
        return self.fake.pair.ends[0].disconnecting

    def start(self) -> None:
        self.process.start()
        self.spawn.carry()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            self.spawn.carry()

    def test_up(self) -> None:
        """It is up with its first answer, and its state is asked for again and again."""
        self.process.start()
        self.assertFalse(self.process.up)
        self.spawn.carry()
        self.assertEqual((self.process.up, self.seen), (True, ["up"]))
        self.fake.places[0].connections = 17
        self.pass_time(1.1)
        assert self.process.state is not None
        self.assertEqual(self.process.state.connections, [17, 3])

    def test_hung(self) -> None:
        """One that does not answer for ten seconds is killed and started again (K6); until then it counts as silent."""
        self.start()
        self.fake.pair.stuck = True
        self.pass_time(HUNG - 2)
        self.assertFalse(self.killed)
        self.assertIsNone(self.process.state)
        self.assertIn("silent", self.seen)
        self.pass_time(6)
        self.assertTrue(self.killed)
        self.assertEqual([event["event"] for event in self.events], ["worker_killed"])
        self.spawn.die(1)
        self.pass_time(0.2)
        self.assertEqual((self.process.up, self.process.restarts), (True, 1))

    def test_hung_for_a_moment(self) -> None:
        """One that answers again in time is left alone."""
        self.start()
        for _ in range(5):
            self.fake.pair.stuck = True
            self.pass_time(HUNG / 2)
            self.fake.pair.stuck = False
            self.pass_time(2)
        self.assertFalse(self.killed)

    def test_deaf(self) -> None:
        """One that answers but does not accept at one of its places is killed, too."""
        self.start()
        self.fake.places[1].accepting = False
        self.pass_time(HUNG - 2)
        self.assertFalse(self.killed)
        self.pass_time(4)
        self.assertTrue(self.killed)
        self.assertIn("accepts no connections", self.events[0]["message"])

    def test_never_up(self) -> None:
        """One that never answers is killed a minute after its start."""
        self.process.start()
        self.fake.pair.stuck = True
        self.pass_time(START - 2)
        self.assertFalse(self.killed)
        self.pass_time(4)
        self.assertTrue(self.killed)

    def test_not_killed_while_it_ends(self) -> None:
        """One that is stopping accepts no connections, and is not killed for it."""
        self.start()
        self.process.stop()
        self.fake.places[0].accepting = False
        self.pass_time(HUNG * 2)
        self.assertFalse(self.killed)
        self.spawn.die(1, "ended with status 0")
        self.pass_time(10)
        self.assertEqual(self.spawn.started, [1], "nor is it started again")

    def test_hung_while_it_ends(self) -> None:
        """One that hangs when it is told to stop is killed as any other: it has the listening sockets."""
        self.start()
        self.process.stop()
        self.fake.pair.stuck = True
        self.pass_time(HUNG - 2)
        self.assertFalse(self.killed)
        self.pass_time(6)
        self.assertTrue(self.killed)
        self.spawn.die(1)
        self.pass_time(10)
        self.assertEqual(self.spawn.started, [1], "it is not started again")

    def test_unreadable(self) -> None:
        """A state that cannot be read is no end of the watch: it is logged, and the process replaced if it stays so
        (K6)."""
        self.start()

        async def nonsense(about: Any) -> Any:
            return {"accepting": "yes"}

        mine: Any = self.fake.mine
        mine._answerers = {"state": nonsense}
        self.pass_time(HUNG + 2)
        self.assertIn("worker_unreadable", [event["event"] for event in self.events])
        self.assertTrue(self.killed)

    def test_delays(self) -> None:
        """Each start comes later than the one before, up to 5 seconds; after ten seconds of life it comes at once."""
        self.start()
        for _ in range(8):
            self.spawn.die(1)
            self.pass_time(5.1)
        self.assertEqual(self.delays, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        self.pass_time(11)
        self.spawn.die(1)
        self.assertEqual(self.delays[-1], 0.1)

    def test_failures(self) -> None:
        """Starts that fail, for want of a process or of an answer, are counted in a row; an answer ends the row."""
        self.start()
        self.spawn.errors = [OSError(errno.EMFILE, "Too many open files")]
        self.spawn.die(1)
        self.assertEqual(self.process.failures, 0)
        self.clock.advance(0.1)
        self.assertEqual((self.process.failures, self.seen[-1]), (1, "has no process: Too many open files"))
        self.clock.advance(0.2)
        self.spawn.die(1, "ended with status 1")
        self.assertEqual(self.process.failures, 2)
        self.pass_time(1)
        self.assertEqual(self.process.failures, 0)

    def test_ended(self) -> None:
        """That a process has ended can be waited for, each anew."""
        self.start()
        first = self.process.ended
        self.assertNoResult(first)
        self.spawn.die(1)
        self.successResultOf(first)
        self.pass_time(0.2)
        self.assertNoResult(self.process.ended)
