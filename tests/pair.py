"""A supervisor and workers without processes: channels joined in memory, on a clock that the test advances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from nitroproxy.daemon.reload import Unloadable
from nitroproxy.workers.channel import Answerer, Channel
from nitroproxy.workers.worker import Worker, WorkerStart


class End(StringTransport):
    """One end of a socket pair; what is written is at the other end when it is `carried`."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel
        channel.makeConnection(self)

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = True


class Pair:
    """Two channels."""

    def __init__(self, one: Channel, other: Channel) -> None:
        self.ends = End(one), End(other)
        self.broken = False
        #: The second end reads nothing: its process hangs.
        self.stuck = False

    def carry(self) -> None:
        """Carry what is written, both ways, until nothing is."""
        one, other = self.ends
        while not self.broken and ((one.value() and not self.stuck) or other.value()):
            for source, sink in ((one, other), (other, one)):
                if sink is other and self.stuck:
                    continue
                data = source.value()
                source.clear()
                if data:
                    sink.channel.dataReceived(data)

    def break_off(self) -> None:
        """Both ends are lost."""
        self.broken = True
        for end in self.ends:
            end.channel.connectionLost(Failure(ConnectionError()))


class FakePlace:
    """A place of a worker's."""

    name = "there"

    def __init__(self) -> None:
        self.accepting = True
        self.connections = 3
        self.done: list[object] = []
        self.complete = True

    def listen(self) -> None:
        """Listen."""

    async def stop(self, timeout: float) -> bool:
        """Stop."""
        self.done.append(timeout)
        return self.complete

    def abort(self) -> None:
        """Abort."""
        self.done.append("abort")


class FakeWorker:
    """What stands for a worker's process."""

    def __init__(self, clock: Clock, number: int, start: WorkerStart, answerers: Mapping[str, Answerer]) -> None:
        self.number = number
        self.start = start
        self.places = [FakePlace(), FakePlace()]
        self.reloaded: list[bytes] = []
        self.refuses = ""
        self.prepared = 0
        self.idle_closed = 0
        self.taken: list[bytes] = []
        self.count = 0
        self.ended = False
        self.supervisor_gone = False
        self.worker = worker = Worker(
            self.places, self.own, self.prepare, self.close_idle, self.taken.append, self.end, {"name": self.tell_name}
        )
        self.supervisors = Channel(clock, answerers, lambda: None)
        self.mine = Channel(clock, worker.answerers, self.lost)
        self.pair = Pair(self.supervisors, self.mine)

    async def tell_name(self, about: object) -> str:
        """What serves in it is asked."""
        return f"worker {self.number}"

    def own(self) -> list[Metric]:
        """A counter and a gauge."""
        labels, values = ["role", "worker"], ["host", str(self.number)]
        counter = CounterMetricFamily("nitroproxy_requests", "Requests.", labels=labels)
        counter.add_metric(values, self.count)
        gauge = GaugeMetricFamily("nitroproxy_connections_open", "Open.", labels=labels)
        gauge.add_metric(values, 2)
        return [counter, gauge]

    def prepare(self, data: bytes) -> Callable[[], object]:
        """Take a configuration."""
        if self.refuses:
            raise Unloadable(self.refuses)
        self.prepared += 1
        return lambda: self.reloaded.append(data)

    def close_idle(self) -> None:
        """Close what is idle."""
        self.idle_closed += 1

    def end(self) -> None:
        """End."""
        self.ended = True

    def lost(self) -> None:
        """The supervisor has gone."""
        self.supervisor_gone = True


class FakeSpawn:
    """Starts workers; `die` ends one.

    :ivar errors: raised, one at each start, until there are none left.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.errors: list[Exception] = []
        self.workers: dict[int, FakeWorker] = {}
        self.started: list[int] = []
        self._ended: dict[int, Callable[[str], object]] = {}

    def __call__(
        self, number: int, start: WorkerStart, answerers: Mapping[str, Answerer], ended: Callable[[str], object]
    ) -> Channel:
        """See `nitroproxy.workers.spawn.Spawn`."""
        self.started.append(number)
        if self.errors:
            raise self.errors.pop(0)
        worker = self.workers[number] = FakeWorker(self._clock, number, start, answerers)
        self._ended[number] = ended
        return worker.supervisors

    def carry(self) -> None:
        """Carry every message, and those that follow from it."""
        for _ in range(4):
            for worker in self.workers.values():
                worker.pair.carry()

    def die(self, number: int, how: str = "was killed by signal 9") -> None:
        """A worker's process ends."""
        self.workers[number].pair.break_off()
        self._ended[number](how)


def values(families: Sequence[Metric]) -> dict[tuple[str, str], float]:
    """Samples by name and worker."""
    return {
        (sample.name, sample.labels.get("worker", "")): sample.value for family in families for sample in family.samples
    }
