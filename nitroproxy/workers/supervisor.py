"""The supervisor's side: N workers that accept from sockets which the supervisor holds, and what they say of
themselves made one.

A worker that dies is started again; the others meanwhile serve. How a process is started `host.launch` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from nitroproxy.telemetry.metrics import Metrics
from nitroproxy.telemetry.totals import growing, of_worker, pack, total, unpack
from nitroproxy.workers.channel import Answerer, Channel, NoAnswer
from nitroproxy.workers.spawn import Ended, Spawn
from nitroproxy.workers.worker import UP, State, WorkerStart

_log: Final = Logger()

#: Seconds for a worker to say that it is there, to say how it is, what it counts, and to end.
_START: Final = 60.0
_STATE: Final = 3.0
_METRICS: Final = 0.5
_END: Final = 3.0
#: Seconds more than it was given that a worker may take to drain.
_LATE: Final = 2.0
#: Seconds between two looks at a worker.
_INTERVAL: Final = 1.0
#: Seconds before a worker is started again: the first time, and at most. Each time they double, until it has lived for
#: `_STEADY` seconds.
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_STEADY: Final = 10.0


class CannotStart(Exception):
    """A worker does not come up."""


class WorkerProcess:
    """One worker, and the processes that are it one after the other.

    :ivar state: what it said of itself last; None while it does not answer.
    :ivar counted: what it counted when it was last asked.
    :ivar restarts: how often it was started again.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.channel: Channel | None = None
        self.ended: Deferred[None] = Deferred()
        self.state: State | None = None
        self.counted: list[Metric] = []
        self.restarts = 0
        self.delay = _FIRST_DELAY
        self.started_at = 0.0

    async def ask(self, what: str, about: object, timeout: float) -> Any:
        """Ask it; raises `NoAnswer`."""
        if self.channel is None:
            raise NoAnswer("it does not run")
        return await self.channel.ask(what, about, timeout)


class Supervisor:
    """The workers.

    :param launch: starts one.
    :param count: how many there are.
    :param orders: gives what a worker is told at its start.
    :param metrics: what the supervisor counts itself.
    """

    def __init__(
        self, clock: IReactorTime, launch: Spawn, count: int, orders: Callable[[], WorkerStart], metrics: Metrics
    ) -> None:
        self._clock = clock
        self._launch = launch
        self._orders = orders
        self._metrics = metrics
        self._members = [WorkerProcess(number) for number in range(1, count + 1)]
        self._starting: Deferred[None] | None = None
        self._stopping = False
        #: What workers counted that have gone.
        self._gone: list[Metric] = []

    def start(self) -> Deferred[None]:
        """Start all; fires when all are there, or fails with `CannotStart`."""
        self._starting = Deferred()
        for member in self._members:
            self._start(member)
        return self._starting

    def _start(self, member: WorkerProcess) -> None:
        member.started_at = self._clock.seconds()
        member.ended = Deferred()
        answerers: Mapping[str, Answerer] = {"metrics": self._tell_metrics, "workers": self._tell_workers}
        channel = self._launch(member.number, self._orders(), answerers, lambda how: self._has_ended(member, how))
        member.channel = channel
        Deferred.fromCoroutine(self._watch(member, channel))

    async def _watch(self, member: WorkerProcess, channel: Channel) -> None:
        """Look at a worker again and again while it lives."""
        timeout = _START
        while member.channel is channel:
            was_there = member.state is not None
            try:
                member.state = msgspec.convert(await channel.ask("state", None, timeout), State)
            except NoAnswer:
                member.state = None
            else:
                if timeout == _START:
                    _log.info("worker {worker} is there", event="worker_started", worker=member.number)
                    timeout = _STATE
                if not was_there:
                    self._all_there()
            await deferLater(self._clock, _INTERVAL)

    def _all_there(self) -> None:
        if self._starting is not None and all(member.state is not None for member in self._members):
            starting, self._starting = self._starting, None
            starting.callback(None)

    def _has_ended(self, member: WorkerProcess, how: Ended) -> None:
        member.channel, member.state = None, None
        self._gone = total([*self._gone, *growing(member.counted)])
        member.counted = []
        member.ended.callback(None)
        if self._starting is not None:
            starting, self._starting = self._starting, None
            self._stopping = True
            starting.errback(CannotStart(f"nitroproxy-host: worker {member.number} cannot start: it {how}"))
        elif not self._stopping:
            if self._clock.seconds() - member.started_at >= _STEADY:
                member.delay = _FIRST_DELAY
            _log.error(
                "worker {worker} {how}; it is started again in {seconds:g} s",
                event="worker_ended",
                worker=member.number,
                how=how,
                seconds=member.delay,
            )
            deferLater(self._clock, member.delay, self._start_again, member)
            member.delay = min(member.delay * 2, _LONGEST_DELAY)

    def _start_again(self, member: WorkerProcess) -> None:
        if not self._stopping:
            member.restarts += 1
            self._start(member)

    # What workers ask, for the pages that they serve.

    async def _tell_metrics(self, about: Any) -> Any:
        return pack(await self.metrics())

    async def _tell_workers(self, about: Any) -> Any:
        answers = await self._ask_all("state", None, _METRICS)
        return {str(number): answer is not None for number, answer in answers.items()}

    async def metrics(self) -> list[Metric]:
        """What all processes count. Who does not answer counts as much as when it last did."""
        answers = await self._ask_all("metrics", None, _METRICS)
        counted = []
        up = GaugeMetricFamily("nitroproxy_worker_up", UP, labels=["worker"])
        up.add_metric(["supervisor"], 1)
        for member in self._members:
            answer = answers[member.number]
            up.add_metric([str(member.number)], float(answer is not None))
            if answer is None:
                counted += growing(member.counted)
            else:
                member.counted = unpack(answer)
                counted += member.counted
        own = of_worker("supervisor", self._metrics.collect())
        return total([*own, *counted, *self._gone, up, *self._restarts()])

    def _restarts(self) -> Iterator[Metric]:
        family = CounterMetricFamily("nitroproxy_worker_restarts", "Workers started again.", labels=["worker"])
        for member in self._members:
            family.add_metric([str(member.number)], member.restarts)
        yield family

    async def _ask_all(self, what: str, about: object, timeout: float) -> dict[int, Any]:
        """What each answers, by number; None for none."""

        async def ask(member: WorkerProcess) -> Any:
            try:
                return await member.ask(what, about, timeout)
            except NoAnswer:
                return None

        answers = await gatherResults([Deferred.fromCoroutine(ask(member)) for member in self._members])
        return {member.number: answer for member, answer in zip(self._members, answers, strict=True)}

    # What the daemon has them do.

    async def reload(self, configuration: bytes) -> bool:
        """Put a configuration, in JSON, in force everywhere; who does not take it is named in the log."""

        async def one(member: WorkerProcess) -> bool:
            try:
                return bool(await member.ask("reload", configuration, _STATE))
            except NoAnswer as error:
                if member.channel is None:
                    return True  # It begins with it when it is started again.
                problem = f"worker {member.number}: {error}"
                _log.error("not reloaded: {problem}", event="reload_failed", worker=member.number, problem=problem)
                return False

        return all(await gatherResults([Deferred.fromCoroutine(one(member)) for member in self._members]))

    def accepting(self, place: int) -> bool:
        """Whether each worker that runs answers, and accepts at *place*."""
        return all(
            member.state is not None and member.state.accepting[place]
            for member in self._members
            if member.channel is not None
        )

    def connections(self, place: int) -> int:
        """How many are open, when the workers were last asked."""
        return sum(member.state.connections[place] for member in self._members if member.state is not None)

    async def stop(self, place: int, timeout: float) -> bool:
        """Have all drain *place*; whether all finished within *timeout* seconds."""
        self._stopping, self._starting = True, None
        running = [member.number for member in self._members if member.channel is not None]
        answers = await self._ask_all("stop", [place, timeout], timeout + _LATE)
        return all(answers[number] is True for number in running)

    def abort(self, place: int) -> None:
        """Have all end their connections at *place* now."""
        Deferred.fromCoroutine(self._ask_all("abort", place, _END))

    def end(self) -> Deferred[None]:
        """Have all end; fires when none runs any more. Who does not end by itself is killed."""
        self._stopping = True
        running = [member for member in self._members if member.channel is not None]
        Deferred.fromCoroutine(self._ask_all("end", None, _END))

        def hang_up() -> None:
            for member in running:
                if member.channel is not None:
                    member.channel.hang_up()

        killing = self._clock.callLater(_END, hang_up)

        def ended(_: object) -> None:
            if killing.active():
                killing.cancel()

        return gatherResults([member.ended for member in running]).addCallback(ended)


class SharedPlace:
    """A place of the daemon's at which its workers accept.

    :param number: which of the workers' places it is.
    """

    def __init__(self, socket: Any, crew: Supervisor, number: int) -> None:
        self._socket = socket
        self._crew = crew
        self._number = number

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return str(self._socket.name)

    def listen(self) -> None:
        """Listen; the workers accept when there are some."""
        self._socket.open()

    async def stop(self, timeout: float) -> bool:
        """See `nitroproxy.daemon.service.Place`."""
        # First: the last worker to let go then finds all who wait, and lets them in. After it nobody could.
        self._socket.close()
        return await self._crew.stop(self._number, timeout)

    @property
    def accepting(self) -> bool:
        """Whether each worker accepts."""
        return self._crew.accepting(self._number)

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._crew.connections(self._number)

    def abort(self) -> None:
        """End every connection now."""
        self._crew.abort(self._number)
