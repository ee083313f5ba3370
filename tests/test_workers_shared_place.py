"""The supervisor's view of a place at which workers accept."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.metrics import Metrics
from nitroproxy.workers.shared_place import SharedPlace
from nitroproxy.workers.supervisor import Supervisor
from nitroproxy.workers.worker import WorkerStart
from tests.pair import FakeSpawn


class FakeSocket:
    """A shared socket."""

    name = "there"

    def __init__(self) -> None:
        self.done: list[str] = []

    def open(self) -> None:
        """Listen."""
        self.done.append("open")

    async def seal(self) -> float:
        """Seal."""
        self.done.append("seal")
        return 0.5

    def close(self) -> None:
        """Close."""
        self.done.append("close")


class SharedPlaceTests(SynchronousTestCase):
    """One place, one worker."""

    def test_order(self) -> None:
        """The supervisor seals and closes the socket before any worker is told to: the last one to close it serves the
        queue."""
        spawn = FakeSpawn(Clock())
        supervisor = Supervisor(
            Clock(),
            "nitroproxy-test",
            spawn,
            1,
            lambda: WorkerStart(b"", 1, [], b""),
            Metrics("host", "1"),
            lambda worker: None,
            lambda: "",
            lambda: None,
            {},
        )
        socket: Any = FakeSocket()
        place = SharedPlace(socket, supervisor, 1)
        place.listen()
        supervisor.start()
        spawn.carry()
        self.assertEqual((place.name, place.accepting, place.connections), ("there", True, 3))
        stopping = Deferred.fromCoroutine(place.stop(4.0))
        self.assertEqual((socket.done, spawn.workers[1].places[1].done), (["open", "seal", "close"], []))
        place.abort()
        spawn.carry()
        self.assertTrue(self.successResultOf(stopping))
        self.assertEqual(spawn.workers[1].places[1].done, [3.5, "abort"])
