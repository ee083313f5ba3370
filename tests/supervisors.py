"""A supervisor of two workers without processes, for its tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.logs import EventLog
from nitroproxy.telemetry.metrics import SUPERVISOR, Metrics, merge
from nitroproxy.telemetry.packing import unpack
from nitroproxy.workers.supervisor import Supervisor
from nitroproxy.workers.worker import WorkerStart
from tests.pair import FakeSpawn, FakeWorker, values


class SupervisorCase(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawn = FakeSpawn(self.clock)
        self.metrics = Metrics("host", "1", SUPERVISOR)
        self.configuration = b"{}"
        self.forgotten: list[int] = []
        self.given_up = 0
        self.obstacle = ""
        self.supervisor = Supervisor(
            self.clock,
            "nitroproxy-test",
            self.spawn,
            2,
            lambda: WorkerStart(self.configuration, 2, ["a", "b"], b"key"),
            self.metrics,
            self.forgotten.append,
            lambda: self.obstacle,
            self.give_up,
            {},
        )
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.starting: Deferred[None] = Deferred()

    def give_up(self) -> None:
        self.given_up += 1

    def up(self) -> None:
        self.starting = self.supervisor.start()
        self.spawn.carry()
        self.successResultOf(self.starting)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            self.spawn.carry()

    def done(self, answer: Any) -> Any:
        result = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        self.spawn.carry()
        return self.successResultOf(result)

    def scrape(self) -> dict[tuple[str, str], float]:
        return values(merge(family for answer in self.done(self.supervisor.metrics()) for family in unpack(answer)))

    def worker(self, number: int) -> FakeWorker:
        return self.spawn.workers[number]

    def told(self, event: str) -> list[object]:
        return [found["about_worker"] for found in self.events if found["event"] == event]
