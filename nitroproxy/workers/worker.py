"""A worker's side: what the supervisor gives it at the start, and what it does when the supervisor asks.

Which worker the process is and what it serves is known to `nitroproxy.workers.worker_daemon`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from nitroproxy import __version__
from nitroproxy.daemon.place import Place
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import ASK, CLOSE_IDLE
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import Metrics, merge
from nitroproxy.telemetry.packing import pack, unpack
from nitroproxy.workers.channel import Answerer, NoAnswer

#: The worker's descriptors: its end of the channel, the memory with the numbers of connections, and the first of the
#: sockets that it accepts from.
CHANNEL: Final = 3
MEMORY: Final = 4
FIRST_SOCKET: Final = 5


class WrongVersion(Exception):
    """The supervisor runs another version than this process: the package was changed under it."""


class WorkerStart(msgspec.Struct, frozen=True):
    """The first message to a worker.

    :ivar configuration: in JSON, the one that is in force.
    :ivar count: how many workers there are.
    :ivar places: the names of the sockets that it accepts from.
    :ivar via_key: the key of `nitroproxy.proxy.trace.ViaName`, the same in all workers: each recognizes a request that
        another has forwarded.
    :ivar shared: see `nitroproxy.daemon.role.Serving.take`. It may be secret.
    :ivar version: the supervisor's.
    """

    configuration: bytes
    count: int
    places: list[str]
    via_key: bytes
    shared: bytes = b""
    version: str = __version__

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"<WorkerStart of {self.version}>"

    @classmethod
    def read(cls, data: bytes) -> WorkerStart:
        """The message.

        :raises WrongVersion: when it comes from another version.
        """
        try:
            version = msgspec.msgpack.decode(data, type=_Version).version
            if version == __version__:
                return msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError:
            version = "another version"
        raise WrongVersion(
            f"the supervisor runs {version} and this worker {__version__}: restart the daemon after an upgrade"
        )

    def to_bytes(self) -> bytes:
        """The message as bytes."""
        return msgspec.msgpack.encode(self)


class _Version(msgspec.Struct, frozen=True):
    version: str


class State(msgspec.Struct, frozen=True):
    """A worker's state, by place.

    :ivar accepting: whether it accepts new connections.
    :ivar connections: how many are open.
    """

    accepting: list[bool]
    connections: list[int]


class Worker:
    """Does what the supervisor asks.

    :param own: gives what this process counts.
    :param prepare: builds what a configuration, in JSON, needs, and gives what puts it in force, which cannot fail;
        raises `Unloadable`.
    :param close_idle: see `nitroproxy.daemon.role.Serving`.
    :param take: takes what the daemon shares: see `nitroproxy.daemon.role.Serving`.
    :param end: ends the process; nothing is asked after it.
    :param serving: what can be asked besides, by name; see `nitroproxy.daemon.role.Serving`.
    """

    def __init__(
        self,
        places: Sequence[Place],
        own: Callable[[], list[Metric]],
        prepare: Callable[[bytes], Callable[[], object]],
        close_idle: Callable[[], object],
        take: Callable[[bytes], object],
        end: Callable[[], object],
        serving: Mapping[str, Answerer],
    ) -> None:
        self._places = places
        self._own = own
        self._prepare = prepare
        self._close_idle = close_idle
        self._take = take
        self._end = end
        self._serving = serving
        self._prepared: Callable[[], object] | None = None

    @property
    def answerers(self) -> Mapping[str, Answerer]:
        """For the channel to the supervisor."""
        return {
            **self._serving,
            "state": self._tell_state,
            "metrics": self._tell_metrics,
            "prepare": self._do_prepare,
            "commit": self._do_commit,
            CLOSE_IDLE: self._do_close_idle,
            "take": self._do_take,
            "stop": self._do_stop,
            "abort": self._do_abort,
            "end": self._do_end,
        }

    async def _tell_state(self, about: Any) -> Any:
        state = State([place.accepting for place in self._places], [place.connections for place in self._places])
        return msgspec.to_builtins(state)

    async def _tell_metrics(self, about: Any) -> Any:
        return pack(self._own())

    async def _do_prepare(self, about: Any) -> Any:
        """Prepare a configuration, or (None) forget the one that is prepared; what is wrong with it, or ""."""
        self._prepared = None
        if about is not None:
            try:
                self._prepared = self._prepare(about)
            except Unloadable as error:
                return str(error)
        return ""

    async def _do_commit(self, about: Any) -> Any:
        commit, self._prepared = self._prepared, None
        assert commit is not None
        commit()

    async def _do_close_idle(self, about: Any) -> Any:
        self._close_idle()

    async def _do_take(self, about: Any) -> Any:
        self._take(about)

    async def _do_stop(self, about: Any) -> Any:
        index, timeout = about
        return await self._places[index].stop(timeout)

    async def _do_abort(self, about: Any) -> Any:
        self._places[about].abort()

    async def _do_end(self, about: Any) -> Any:
        self._end()


class Ask(Protocol):
    """Asks the supervisor: see `Channel.ask`."""

    def __call__(self, what: str, about: object, timeout: float) -> Deferred[Any]: ...


def worker_up(role: str, up: Mapping[str, bool]) -> Metric:
    """The metric that says which processes of the daemon answered a scrape, by worker."""
    family = GaugeMetricFamily(
        "nitroproxy_worker_up", "Whether that process of the daemon answered this scrape.", labels=["role", "worker"]
    )
    for worker, answers in up.items():
        family.add_metric([role, worker], float(answers))
    return family


def check_of(up: Mapping[str, bool]) -> Check:
    """The check that says whether all workers answer, given which do."""
    missing = [name for name, answers in up.items() if not answers]
    if missing:
        return Check("warn", f"of {len(up)} workers these do not answer: {', '.join(missing)}")
    return Check("pass", f"{len(up)} answer")


class AllWorkers:
    """All processes of the daemon, for a worker's pages: see `nitroproxy.daemon.role.AllProcesses`.

    :param metrics: what this process counts, for when the supervisor does not answer.
    """

    def __init__(self, ask: Ask, metrics: Metrics) -> None:
        self._ask = ask
        self._metrics = metrics

    async def metrics(self) -> Sequence[Metric]:
        """What all processes of the daemon count; this one alone when the supervisor does not answer."""
        try:
            answers: list[bytes] = await self._ask("metrics", None, ASK)
        except NoAnswer:
            return [*self._metrics.collect(), worker_up(self._metrics.role, {"supervisor": False})]
        return merge(family for answer in answers for family in unpack(answer))

    def ask_once(self, what: str, about: Any, timeout: float = ASK) -> Deferred[Any]:
        """Ask what the supervisor has for the whole daemon: see `nitroproxy.daemon.role.AskOnce`."""

        def no_answer(failure: Failure) -> None:
            failure.trap(NoAnswer)

        return self._ask(what, about, timeout).addErrback(no_answer)

    async def check(self) -> Check:
        """Whether all workers answer."""
        try:
            up: dict[str, bool] = await self._ask("workers", None, ASK)
        except NoAnswer as error:
            return Check("warn", f"the supervisor does not answer: {error}")
        return check_of(up)
