"""Looks at the whole stack every few seconds, whether or not anyone asks: for the gauge of its health, to remember
since when each layer is as it is, and for the last quarter of an hour of the status page."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from nitroproxy.host.status import SAMPLED, Room, Status, daemons_of, hops_of, room_of, worst
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.health import Health
from nitroproxy.telemetry.samples import INTERVAL, Lags, Samples
from nitroproxy.telemetry.states import States

_log: Final = Logger()

#: Seconds for which a look is good enough for whoever asks: somebody who has just mended something asks at once.
FRESH: Final = 1.0
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
        self._began = deadlines.seconds()
        self._at = -math.inf
        self._waiting: list[Deferred[None]] = []
        deadlines.after(0.0, self._begin)

    def _begin(self) -> None:
        self._deadlines.after(INTERVAL, self._begin)
        Deferred.fromCoroutine(self._sample())

    async def _sample(self) -> None:
        """Look, whoever else has just done so, and add to the curves."""
        if await self._look():
            self._take(self._families)

    def look(self) -> Deferred[None]:
        """Look, unless the last look is less than `FRESH` seconds old. Fires when `status` tells what was seen; all who
        ask meanwhile wait for the same look."""
        if self._deadlines.seconds() - self._at < FRESH:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._look()).addCallback(self._tell_waiting)
        return waiting

    def _tell_waiting(self, seen: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def _look(self) -> bool:
        """Look now; whether that went well."""
        collecting = Deferred.fromCoroutine(self._collect())
        try:
            self.states.note((await self._examine()).checks)
            self._families = await collecting
            self._at = self._deadlines.seconds()
        except Exception:
            collecting.addErrback(lambda failure: None)
            _log.failure("a look at the stack failed", event="callback_failed")
            return False
        return True

    def _take(self, families: Sequence[Metric]) -> None:
        """Add what both daemons count to the curves."""
        now = self._deadlines.seconds()
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
            age=self._deadlines.seconds() - max(self._at, self._began),
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
