"""One worker as the supervisor sees it: its current process, replaced when it dies.

A worker that does not answer, or does not accept, for `HUNG` seconds is killed, so that the others need not suffer for
it; one that has ended is started again, after a delay. How a process is started: `nitroproxy.workers.spawn`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from nitroproxy.workers.channel import Channel, NoAnswer
from nitroproxy.workers.spawn import Ended
from nitroproxy.workers.worker import State

_log: Final = Logger()

#: Seconds that a worker may take from its start to its first answer.
START: Final = 60.0
#: Seconds that it may be without an answer, or not accepting, later on: as long as the watchdog of our units waits.
HUNG: Final = 10.0
#: Seconds to wait for one answer about its state, and between two questions.
_STATE: Final = 3.0
_INTERVAL: Final = 1.0
#: Seconds before a worker is started again: the first time, and at most. Each time they double, until it has lived for
#: `_STEADY` seconds.
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_STEADY: Final = 10.0


class Watcher(Protocol):
    """Hears what becomes of a worker."""

    def worker_up(self, worker: WorkerProcess) -> None:
        """Its current process has answered for the first time."""

    def worker_silent(self, worker: WorkerProcess) -> None:
        """It has ended or does not answer at present."""

    def worker_ended(self, worker: WorkerProcess, how: Ended) -> None:
        """Its process has ended, or could not be started; *how* follows "it" or its name."""


class WorkerProcess:
    """One worker.

    :param number: from 1 on.
    :param spawn: starts its process; called with what is to be called when that has ended.
    :ivar state: what it last said of itself; None while it does not answer.
    :ivar channel: to its current process; None while it has none.
    :ivar up: its current process has answered.
    :ivar failures: how many processes in a row have ended before they answered, or could not be started.
    :ivar has_begun: the last start made a process; otherwise the fault is this process's own.
    :ivar restarts: how often it was started again.
    :ivar ended: fires when the current process has ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        number: int,
        spawn: Callable[[WorkerProcess, Callable[[Ended], object]], Channel],
        watcher: Watcher,
    ) -> None:
        self.number = number
        self.state: State | None = None
        self.channel: Channel | None = None
        self.up = False
        self.failures = 0
        self.has_begun = False
        self.restarts = 0
        self.ended: Deferred[None] = Deferred()
        self._clock = clock
        self._spawn = spawn
        self._watcher = watcher
        self._delay = _FIRST_DELAY
        self._started_at = 0.0
        #: When it last answered and accepted everywhere, or was started.
        self._well_at = 0.0
        self._killed = False
        self._stopping = False

    def start(self) -> None:
        """Start a process. What prevents that is an end like another, reported to the watcher."""
        self._started_at = self._well_at = self._clock.seconds()
        self._killed = False
        self.ended = Deferred()
        self.has_begun = False
        try:
            channel = self._spawn(self, self._has_ended)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._has_ended(f"has no process: {reason or repr(error)}")
            return
        self.has_begun = True
        self.channel = channel
        Deferred.fromCoroutine(self._watch(channel))

    def restart(self) -> float:
        """Start another process in a while, unless `stop` is called before.

        :returns: the seconds until then.
        """
        if self._clock.seconds() - self._started_at >= _STEADY:
            self._delay = _FIRST_DELAY
        delay = self._delay
        self._delay = min(delay * 2, _LONGEST_DELAY)
        deferLater(self._clock, delay, self._start_again)
        return delay

    def _start_again(self) -> None:
        if not self._stopping:
            self.restarts += 1
            self.start()

    def stop(self) -> None:
        """From now on it is not started again, nor killed because it accepts nothing: it is going to end. One that
        hangs is killed all the same: it has the listening sockets, and the daemon would wait for it as long as it may
        drain."""
        self._stopping = True

    def kill(self, why: str) -> None:
        """Kill its process; it is started again.

        :param why: to follow its name.
        """
        if self.channel is not None and not self._killed:
            self._killed = True
            _log.error(
                "worker {about_worker} {why}: killing it", event="worker_killed", about_worker=self.number, why=why
            )
            self.channel.hang_up()

    async def ask(self, what: str, about: object, timeout: float) -> Any:
        """Ask it; raises `NoAnswer`."""
        if self.channel is None:
            raise NoAnswer("it does not run")
        return await self.channel.ask(what, about, timeout)

    async def _watch(self, channel: Channel) -> None:
        """Ask a process again and again how it is, while it lives."""
        while self.channel is channel:
            state = await self._ask_state(channel, _STATE if self.up else START)
            if self.channel is channel:
                self.state = state
                self._look()
            await deferLater(self._clock, _INTERVAL)

    @staticmethod
    async def _ask_state(channel: Channel, timeout: float) -> State | None:
        try:
            return msgspec.convert(await channel.ask("state", None, timeout), State)
        except NoAnswer:
            return None
        except msgspec.ValidationError as error:
            _log.error("a worker's state cannot be read: {error}", event="worker_unreadable", error=str(error))
            return None

    def _look(self) -> None:
        """Judge the process by its state."""
        now = self._clock.seconds()
        if self.state is None:
            self._watcher.worker_silent(self)
        elif not self.up:
            self.up = True
            self.failures = 0
            self._watcher.worker_up(self)
        if self.state is not None and (self._stopping or all(self.state.accepting)):
            self._well_at = now
        elif now - self._well_at >= (HUNG if self.up else START):
            deaf = "does not answer" if self.state is None else "accepts no connections"
            self.kill(f"{deaf} for {now - self._well_at:.0f} s")

    def _has_ended(self, how: Ended) -> None:
        self.failures = 0 if self.up else self.failures + 1
        self.channel, self.state, self.up = None, None, False
        self._watcher.worker_silent(self)
        self.ended.callback(None)
        self._watcher.worker_ended(self, how)
