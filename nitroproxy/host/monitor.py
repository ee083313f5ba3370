"""Looks at the whole stack every few seconds, whether or not anyone asks: for the gauge of its health, to remember
since when each layer is as it is, and for the last quarter of an hour of the status page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from nitroproxy.host.status import SAMPLED, Room, Status, daemons_of, hops_of, room_of, worst
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.health import Health
from nitroproxy.telemetry.samples import INTERVAL, Lags, Samples
from nitroproxy.telemetry.states import States

_log: Final = Logger()

#: Seconds by which timers may be late before a daemon is at its limit.
_LATE: Final = 0.1


class Monitor:
    """Looks for the first time as soon as the reactor runs, and no more once *deadlines* are stopped.

    :param examine: examines every layer; answers within about a second.
    :param collect: collects the metrics of both daemons, as quickly.
    :ivar states: how each layer was seen to be.
    """

    def __init__(
        self,
        examine: Callable[[], Coroutine[Any, Any, Health]],
        collect: Callable[[], Coroutine[Any, Any, Sequence[Metric]]],
        deadlines: Deadlines,
    ) -> None:
        self.states = States(deadlines.seconds)
        self._examine = examine
        self._collect = collect
        self._deadlines = deadlines
        self._samples = {hop: Samples(hop) for hop in SAMPLED}
        self._lags = {role: Lags(role) for role in ("host", "enclave")}
        self._families: Sequence[Metric] = ()
        self._at = deadlines.seconds()
        deadlines.after(0.0, self._begin)

    def _begin(self) -> None:
        self._deadlines.after(INTERVAL, self._begin)
        Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        collecting = Deferred.fromCoroutine(self._collect())
        try:
            self.states.note((await self._examine()).checks)
            self._take(await collecting)
        except Exception:
            collecting.addErrback(lambda failure: None)
            _log.failure("a look at the stack failed", event="callback_failed")

    def _take(self, families: Sequence[Metric]) -> None:
        """Keep what both daemons count."""
        self._families = families
        now = self._at = self._deadlines.seconds()
        up = {daemon.role: daemon.up for daemon in daemons_of(families)}
        for hop, samples in self._samples.items():
            samples.take(families if up["host" if hop == "nitroproxy-host" else "enclave"] else None, now)
        for lags in self._lags.values():
            lags.take(families)

    def status(
        self,
        *,
        machine: str,
        cid: int | None,
        now: float,
        failures: Sequence[Failure],
        configuration: Sequence[tuple[str, str, str]],
    ) -> Status:
        """How the stack is and has been. See `Status` for the parameters.

        :param now: seconds since the epoch.
        """
        states = self.states.tell()
        lags = [(role, lags.tell()) for role, lags in self._lags.items()]
        return Status(
            status=worst(states),
            time=now,
            age=self._deadlines.seconds() - self._at,
            machine=machine,
            cid=cid,
            layers=states,
            daemons=daemons_of(self._families),
            interval=INTERVAL,
            samples={hop: list(samples.tell()) for hop, samples in self._samples.items()},
            hops=hops_of(self._families),
            failures=list(failures),
            room=[*room_of(self._families), *(Room("lag", role, lag, _LATE) for role, lag in lags if lag is not None)],
            configuration=list(configuration),
        )
