"""Looks at the whole stack every few seconds, whether or not anyone asks: for the gauge of its health, and to remember
since when each layer is as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.telemetry.health import Health
from nitroproxy.telemetry.states import States

_log: Final = Logger()

#: Seconds between two looks.
INTERVAL: Final = 5.0


class Monitor:
    """Looks for the first time as soon as the reactor runs, and no more once *deadlines* are stopped.

    :param examine: examines every layer; answers within about a second.
    :ivar states: what was seen.
    """

    def __init__(self, examine: Callable[[], Awaitable[Health]], deadlines: Deadlines) -> None:
        self.states = States(deadlines.seconds)
        self._examine = examine
        self._deadlines = deadlines
        deadlines.after(0.0, self._begin)

    def _begin(self) -> None:
        self._deadlines.after(INTERVAL, self._begin)
        Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        try:
            self.states.note((await self._examine()).checks)
        except Exception:
            _log.failure("a look at the stack failed", event="callback_failed")
