"""The supervisor's side: all workers of a daemon, and what the daemon has them do.

A worker that dies or hangs is replaced while the others keep serving: see `nitroproxy.workers.worker_process`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, Metric
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from nitroproxy.daemon.role import CLOSE_IDLE
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import Metrics, merge
from nitroproxy.telemetry.packing import pack, unpack
from nitroproxy.workers.channel import Answerer, Channel, NoAnswer, Refused
from nitroproxy.workers.spawn import Ended, Spawn
from nitroproxy.workers.worker import WorkerStart, check_of, worker_up
from nitroproxy.workers.worker_process import HUNG, START, WorkerProcess

_log: Final = Logger()

#: Seconds for a worker to say what it counts, to end its connections, and to end.
_METRICS: Final = 0.5
_ABORT: Final = 1.0
_END: Final = 3.0
#: Seconds more than it was given that a worker may take to drain.
_LATE: Final = 2.0
#: So many failed starts of a worker in a row, some 20 seconds, end the daemon. The fault will not go by itself, and a
#: new daemon may not have it: the package has been upgraded under this one. While other workers serve and a new daemon
#: would not start either, the daemon goes on.
_MOST_FAILURES: Final = 10


class CannotStart(Exception):
    """A worker does not come up."""


class Supervisor:
    """The workers.

    :param name: the daemon's, for messages.
    :param spawn: starts a process.
    :param count: how many workers there are.
    :param start: gives what a worker is given at its start: the configuration that is then in force.
    :param metrics: what the supervisor counts itself; it adds the workers' restarts.
    :param forget: called with the index, from 0, of a worker that does not serve at present.
    :param obstacle: says why a new daemon would not start; empty when nothing is known against it.
    :param give_up: ends the daemon, which cannot keep its workers running.
    :param answerers: what workers can ask besides, by name; see `nitroproxy.daemon.role.Once`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        spawn: Spawn,
        count: int,
        start: Callable[[], WorkerStart],
        metrics: Metrics,
        forget: Callable[[int], object],
        obstacle: Callable[[], str],
        give_up: Callable[[], object],
        answerers: Mapping[str, Answerer],
    ) -> None:
        self._clock = clock
        self._name = name
        self._spawn = spawn
        self._start = start
        self._metrics = metrics
        self._forget = forget
        self._obstacle = obstacle
        self._give_up = give_up
        self._answerers: Mapping[str, Answerer] = {
            **answerers,
            "metrics": self._tell_metrics,
            "workers": self._tell_workers,
            CLOSE_IDLE: self._have_close_idle,
        }
        self._workers = [WorkerProcess(clock, number, self._spawn_one, self) for number in range(1, count + 1)]
        #: Fires when all are up; None before `start` and once it has fired.
        self._starting: Deferred[None] | None = None
        self._stopping = False
        metrics.sources.append(self._restarts)

    def start(self) -> Deferred[None]:
        """Start all; fires when all are up, or fails with `CannotStart`."""
        starting = self._starting = Deferred()
        for worker in self._workers:
            if not self._stopping:
                worker.start()
        return starting

    def _spawn_one(self, worker: WorkerProcess, ended: Callable[[Ended], object]) -> Channel:
        return self._spawn(worker.number, self._start(), self._answerers, ended)

    # What becomes of a worker: see `Watcher`.

    def worker_up(self, worker: WorkerProcess) -> None:
        """See `nitroproxy.workers.worker_process.Watcher`."""
        _log.info("worker {about_worker} started", event="worker_started", about_worker=worker.number)
        if self._starting is not None and all(one.up for one in self._workers):
            starting, self._starting = self._starting, None
            starting.callback(None)

    def worker_silent(self, worker: WorkerProcess) -> None:
        """See `nitroproxy.workers.worker_process.Watcher`."""
        self._forget(worker.number - 1)

    def worker_ended(self, worker: WorkerProcess, how: Ended) -> None:
        """See `nitroproxy.workers.worker_process.Watcher`."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            self._stop_restarting()
            starting.errback(CannotStart(f"{self._name}: worker {worker.number} cannot start: it {how}"))
        elif not self._stopping and not self._given_up(worker, how):
            seconds = worker.restart()
            _log.error(
                "worker {about_worker} {how}; it is started again in {seconds:g} s",
                event="worker_ended",
                about_worker=worker.number,
                how=how,
                seconds=seconds,
            )

    def _given_up(self, worker: WorkerProcess, how: Ended) -> bool:
        """Whether the daemon ends because *worker* fails to start."""
        if worker.failures < _MOST_FAILURES:
            return False
        # Without descriptors or memory for a process, this one cannot examine files either: then a new daemon is due.
        obstacle = self._obstacle() if worker.has_begun and any(one.up for one in self._workers) else ""
        if obstacle:
            _log.error(
                "worker {about_worker} has failed to start {count} times; the other workers go on, since a new daemon "
                "would not start: {problem}",
                event="worker_obstacle",
                about_worker=worker.number,
                count=worker.failures,
                problem=obstacle,
            )
            return False
        self._stop_restarting()
        _log.critical(
            "worker {about_worker} {how}; it has failed to start {count} times: ending the daemon",
            event="worker_given_up",
            about_worker=worker.number,
            how=how,
            count=worker.failures,
        )
        self._give_up()
        return True

    def _stop_restarting(self) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.stop()

    # What workers ask, for the pages that they serve.

    async def _have_close_idle(self, about: Any) -> Any:
        await self._ask_all(CLOSE_IDLE, None, _METRICS)

    async def _tell_metrics(self, about: Any) -> Any:
        return await self.metrics()

    async def _tell_workers(self, about: Any) -> Any:
        return await self.up()

    async def up(self) -> dict[str, bool]:
        """Whether each worker answers."""
        answers = await self._ask_all("state", None, _METRICS)
        return {str(number): answer is not None for number, answer in answers.items()}

    async def metrics(self) -> list[bytes]:
        """What each process counts, as `nitroproxy.telemetry.packing.pack` writes it; that of a worker that does not
        answer is missing, and nitroproxy_worker_up says so."""
        answers = await self._ask_all("metrics", None, _METRICS)
        up = {"supervisor": True} | {str(number): answer is not None for number, answer in answers.items()}
        own = pack([*self._metrics.collect(), worker_up(self._metrics.role, up)])
        return [own, *(answer for answer in answers.values() if answer is not None)]

    async def ask_serving(self, what: str) -> list[Any]:
        """What each worker's serving part answers; that of one that does not answer is missing."""
        answers = await self._ask_all(what, None, _METRICS)
        return [answer for answer in answers.values() if answer is not None]

    def _restarts(self) -> Iterator[Metric]:
        family = CounterMetricFamily("nitroproxy_worker_restarts", "Workers started again.", labels=["worker"])
        for worker in self._workers:
            family.add_metric([str(worker.number)], worker.restarts)
        yield family

    async def _ask_all(self, what: str, about: object, timeout: float) -> dict[int, Any]:
        """What each answers, by number; None for none."""

        async def ask(worker: WorkerProcess) -> Any:
            try:
                return await worker.ask(what, about, timeout)
            except NoAnswer:
                return None

        answers = await gatherResults([Deferred.fromCoroutine(ask(worker)) for worker in self._workers])
        return {worker.number: answer for worker, answer in zip(self._workers, answers, strict=True)}

    # What the daemon has them do.

    async def reload(self, configuration: bytes, commit: Callable[[], object]) -> list[str]:
        """Put a configuration in force in this process and in every worker, or in none.

        Every worker prepares it first; from the first that puts it in force to the last no more passes than the
        messages take. A worker that does not answer is killed, and begins with what is in force when it starts again.

        :param configuration: in JSON.
        :param commit: puts it in force here, cannot fail; from then on `start` gives it.
        :returns: what was wrong, a line for each worker that cannot use it: then it is in force nowhere.
        """
        asked = [(worker, worker.channel) for worker in self._workers if worker.up and worker.channel is not None]
        outcomes = await gatherResults([Deferred.fromCoroutine(self._prepare(*one, configuration)) for one in asked])
        answers = {channel: outcome for (_, channel), outcome in zip(asked, outcomes, strict=True)}
        problems = [f"worker {worker.number}: {answers[channel]}" for worker, channel in asked if answers[channel]]
        if problems:
            for channel in answers:
                channel.ask("prepare", None, HUNG).addErrback(lambda failure: failure.trap(NoAnswer))
            return problems
        commit()
        committing = [
            Deferred.fromCoroutine(self._commit(worker, worker.channel, answers, configuration))
            for worker in self._workers
            # Otherwise it begins with it when it is started again.
            if worker.channel is not None and answers.get(worker.channel, "") is not None
        ]
        await gatherResults(committing)
        return []

    @staticmethod
    async def _prepare(worker: WorkerProcess, channel: Channel, configuration: bytes) -> str | None:
        """Have *worker* prepare; what was wrong, "", or None when it does not answer."""
        try:
            problem: str = await channel.ask("prepare", configuration, HUNG if worker.up else START)
        except Refused as error:
            return str(error)
        except NoAnswer as error:
            if worker.channel is channel:
                worker.kill(f"did not reload ({error})")
            return None
        return problem

    async def _commit(
        self, worker: WorkerProcess, channel: Channel, prepared: Container[Channel], configuration: bytes
    ) -> None:
        if channel not in prepared:  # It was starting, with the configuration of before.
            problem = await self._prepare(worker, channel, configuration)
            if problem:
                worker.kill(f"cannot use the new configuration ({problem})")
            if problem != "":
                return
        try:
            await channel.ask("commit", None, HUNG)
        except NoAnswer as error:
            if worker.channel is channel:
                worker.kill(f"did not reload ({error})")

    async def _share_with(self, worker: WorkerProcess, shared: bytes) -> None:
        channel = worker.channel
        if channel is None:
            return  # It begins with it when it is started again.
        try:
            await channel.ask("take", shared, HUNG if worker.up else START)
        except NoAnswer as error:
            if worker.channel is channel:
                worker.kill(f"did not take what the daemon shares ({error})")

    def share(self, shared: bytes) -> Deferred[Any]:
        """Give *shared* to every worker; `start` must give it already. A worker that does not take it is killed and
        starts again with it: none keeps another.

        :returns: fires when all have it.
        """
        return gatherResults([Deferred.fromCoroutine(self._share_with(worker, shared)) for worker in self._workers])

    def accepting(self, place: int) -> bool:
        """Whether a worker is up that accepts at *place*; one that does not is replaced."""
        return any(worker.state is not None and worker.state.accepting[place] for worker in self._workers)

    def connections(self, place: int) -> int:
        """How many are open, when the workers were last asked."""
        return sum(worker.state.connections[place] for worker in self._workers if worker.state is not None)

    async def stop(self, place: int, timeout: float) -> bool:
        """Have all drain *place*; whether all finished within *timeout* seconds."""
        self._starting = None
        self._stop_restarting()
        running = [worker.number for worker in self._workers if worker.channel is not None]
        answers = await self._ask_all("stop", [place, timeout], timeout + _LATE)
        return all(answers[number] is True for number in running)

    def abort(self, place: int) -> None:
        """Have all end their connections at *place* now. One that does not answer is killed: `stop` would go on waiting
        for it."""
        for worker in self._workers:
            Deferred.fromCoroutine(self._abort_one(worker, place))

    @staticmethod
    async def _abort_one(worker: WorkerProcess, place: int) -> None:
        channel = worker.channel
        try:
            await worker.ask("abort", place, _ABORT)
        except NoAnswer as error:
            if worker.channel is channel:
                worker.kill(f"does not end its connections ({error})")

    def end(self) -> Deferred[None]:
        """Have all end; fires when no process is left. One that does not end by itself is killed."""
        self._stop_restarting()
        running = [worker for worker in self._workers if worker.channel is not None]
        Deferred.fromCoroutine(self._ask_all("end", None, _END))
        killing = self._clock.callLater(_END, self._kill_all)

        def ended(_: object) -> None:
            if killing.active():
                killing.cancel()

        return gatherResults([worker.ended for worker in running]).addCallback(ended)

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.kill("does not end")


class Supervised:
    """All processes of the daemon, for what the supervisor has itself: see `nitroproxy.daemon.role.AllProcesses`.

    :param supervisor: gives the supervisor, which is made later.
    """

    def __init__(self, supervisor: Callable[[], Supervisor]) -> None:
        self._supervisor = supervisor

    async def metrics(self) -> Sequence[Metric]:
        """What all processes of the daemon count."""
        return merge(family for answer in await self._supervisor().metrics() for family in unpack(answer))

    async def check(self) -> Check:
        """Whether all workers answer."""
        return check_of(await self._supervisor().up())
