"""A worker's side: what the supervisor hands it at the start, and what it does when the supervisor asks.

Which process the worker is and what it serves the composition root knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from typing import Protocol as Interface

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.totals import pack, unpack
from nitroproxy.workers.channel import Answerer, Channel, NoAnswer

#: The worker's descriptors: its end of the channel, the memory with everybody's numbers of connections, and the first
#: of the sockets that it accepts from.
CHANNEL: Final = 3
MEMORY: Final = 4
FIRST_SOCKET: Final = 5

#: What the metric nitroproxy_worker_up tells.
UP: Final = "Whether that process of the host daemon answered this scrape."

#: Seconds that the supervisor may take to tell of all workers: somewhat more than it waits for them.
_TIMEOUT: Final = 0.7


class WorkerStart(msgspec.Struct, frozen=True):
    """The first message to a worker.

    :ivar configuration: in JSON, the one that is in force.
    :ivar count: how many workers there are.
    :ivar places: the names of the sockets that it accepts from.
    :ivar tag: the same in all workers: who they are to a request that comes back to them.
    """

    configuration: bytes
    count: int
    places: list[str]
    tag: str

    @classmethod
    def read(cls, data: bytes) -> WorkerStart:
        """The orders in a message."""
        return msgspec.msgpack.decode(data, type=cls)

    def to_bytes(self) -> bytes:
        """The message."""
        return msgspec.msgpack.encode(self)


class State(msgspec.Struct, frozen=True):
    """How a worker is; by place.

    :ivar accepting: whether it takes new connections.
    :ivar connections: how many are open.
    """

    accepting: list[bool]
    connections: list[int]


class Place(Interface):
    """What a worker accepts from: see `nitroproxy.daemon.place.Listener`."""

    async def stop(self, timeout: float) -> bool:
        """Accept no more, and drain; whether all finished within *timeout* seconds."""

    @property
    def accepting(self) -> bool:
        """Whether new connections are taken."""

    @property
    def connections(self) -> int:
        """How many are open."""

    def abort(self) -> None:
        """End every connection now."""


class Worker:
    """Does what the supervisor asks.

    :param own: gives what this process counts.
    :param reload: puts a configuration, in JSON, in force; gives whether it could.
    :param end: ends the process; nothing is asked after it.
    """

    def __init__(
        self,
        places: Sequence[Place],
        own: Callable[[], list[Metric]],
        reload: Callable[[bytes], bool],
        end: Callable[[], object],
    ) -> None:
        self._places = places
        self._own = own
        self._reload = reload
        self._end = end

    @property
    def answerers(self) -> Mapping[str, Answerer]:
        """For the channel to the supervisor."""
        return {
            "state": self._tell_state,
            "metrics": self._tell_metrics,
            "reload": self._do_reload,
            "stop": self._do_stop,
            "abort": self._do_abort,
            "end": self._do_end,
        }

    async def _tell_state(self, about: Any) -> Any:
        state = State([place.accepting for place in self._places], [place.connections for place in self._places])
        return msgspec.to_builtins(state)

    async def _tell_metrics(self, about: Any) -> Any:
        return pack(self._own())

    async def _do_reload(self, about: Any) -> Any:
        return self._reload(about)

    async def _do_stop(self, about: Any) -> Any:
        index, timeout = about
        return await self._places[index].stop(timeout)

    async def _do_abort(self, about: Any) -> Any:
        self._places[about].abort()

    async def _do_end(self, about: Any) -> Any:
        self._end()


class AllWorkers:
    """The whole picture, as a worker has it from the supervisor.

    :param own: gives what this process counts, for when the supervisor does not answer.
    """

    def __init__(self, channel: Channel, own: Callable[[], list[Metric]]) -> None:
        self._channel = channel
        self._own = own

    async def metrics(self) -> Sequence[Metric]:
        """What all processes of the daemon count; without the supervisor that is this one alone."""
        try:
            return unpack(await self._channel.ask("metrics", timeout=_TIMEOUT))
        except NoAnswer:
            up = GaugeMetricFamily("nitroproxy_worker_up", UP, labels=["worker"])
            up.add_metric(["supervisor"], 0)
            return [*self._own(), up]

    async def check(self) -> Check:
        """Whether all workers answer."""
        try:
            up: dict[str, bool] = await self._channel.ask("workers", timeout=_TIMEOUT)
        except NoAnswer as error:
            return Check("warn", f"the supervisor does not answer: {error}")
        missing = [name for name, answers in up.items() if not answers]
        if missing:
            return Check("warn", f"of {len(up)} workers these do not answer: {', '.join(missing)}")
        return Check("pass", f"{len(up)} answer")
