"""A daemon's life: it listens, reloads, drains on a signal to stop, and ends with a status that says how that went.

The composition roots make a `Daemon` of their places. It knows nothing of what these serve.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from nitroproxy.daemon import signals
from nitroproxy.daemon.place import Place, Unable
from nitroproxy.daemon.reactor import keeps_monotonic_time
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.telemetry.instruments import Instruments

_log: Final = Logger()

#: Seconds that the end may take once everything has drained.
_LAST_SECONDS: Final = 15.0


class Daemon(Service):
    """A daemon, as the service that twistd runs.

    :param stages: its places, in the order in which they stop: those of one stage together, and each stage only when
        the requests of the one before have finished, which may still need the later ones.
    :param instruments: its log, where twistd runs the daemon, and the lag of the reactor.
    :param notifier: tells the service manager.
    :param drain_timeout: gives the seconds for all of the stopping.
    :param at_end: called, and waited for, one after the other when everything has stopped, to release what requests
        needed until then.
    :param reload: does what SIGHUP asks for; gives whether it could. Never called again before it has finished.
    :param at_start: called when the daemon listens and takes signals; its result fires when the daemon is ready, or
        fails with the reason why it cannot run.
    :param at_stop: called when the daemon is told to stop.
    :param delay: gives the seconds from then until it begins to; the second signal ends them.
    :param about: the first words of the status line.
    :param takes_signals: False: another process tells this one what to do.
    """

    def __init__(
        self,
        reactor: Any,
        stages: Sequence[Sequence[Place]],
        instruments: Instruments,
        notifier: Notifier,
        drain_timeout: Callable[[], float],
        at_end: Sequence[Callable[[], object]],
        reload: Callable[[], bool | Deferred[bool]],
        *,
        at_start: Callable[[], Deferred[None]] = lambda: succeed(None),
        at_stop: Callable[[], object] = lambda: None,
        delay: Callable[[], float] = lambda: 0.0,
        about: str = "",
        takes_signals: bool = True,
    ) -> None:
        self._reactor = reactor
        self._stages = stages
        self._instruments = instruments
        self._notifier = notifier
        self._drain_timeout = drain_timeout
        self._at_end = at_end
        self.reload = reload
        self._at_start = at_start
        self._at_stop = at_stop
        self._delay = delay
        #: Fires when the delay is over; None when there is none.
        self._delaying: Deferred[None] | None = None
        self._about = about
        self._takes_signals = takes_signals
        self._ready = False
        self._draining = False
        self._reloading = False
        self._reload_again = False
        self._reload_failed = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join *parent*; as part of twistd's application the daemon also installs its log observer and its signal
        handlers."""
        if isinstance(parent, Componentized):
            if parent.getComponent(ILogObserver) is None:
                parent.setComponent(ILogObserver, self._instruments.log)
                self._instruments.log.active = True
                # twistd forks when it goes to the background; the lines that wait would be lost with the parent.
                os.register_at_fork(before=self._instruments.flush)
            self._reactor.callWhenRunning(self._own_process)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Listen, before the process gives up privileges."""
        super().privilegedStartService()
        try:
            for stage in self._stages:
                for place in stage:
                    place.listen()
        except Unable:
            self._instruments.flush()
            raise

    def startService(self) -> None:
        """Start the watchdog's keep-alive and what the daemon has to start; then tell the service manager."""
        super().startService()
        if not keeps_monotonic_time(self._reactor):
            _log.warn(
                "this reactor keeps time by the system's clock: when that is set, timeouts come early or late and the"
                " watchdog may end the daemon; run twistd with --reactor=nitroproxy",
                event="clock_not_monotonic",
            )
        self._instruments.lag.start(self._beat)
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        """The reactor runs, with our signal handlers: whatever is started from now on is stopped by them."""
        self._at_start().addCallbacks(self._is_ready, self._cannot_start)

    def _is_ready(self, _: object) -> None:
        self._ready = True
        if not self._draining:
            self._notifier.ready(self._status())

    def _cannot_start(self, failure: Failure) -> None:
        if self._draining:
            return  # A worker that was told to stop while it started has not failed.
        print(failure.getErrorMessage(), file=sys.__stderr__, flush=True)
        self.give_up()

    def give_up(self) -> None:
        """Drain and end with status 1: the daemon cannot go on as it is, and the service manager starts another."""
        _end_process_with(1)
        with contextlib.suppress(ReactorNotRunning):  # It is stopping already.
            self._reactor.stop()

    def _beat(self) -> None:
        """The reactor runs. As long as it does and every place accepts, send the watchdog's keep-alive."""
        if self._accepting():
            self._notifier.ping()
        self._notifier.status(self._status())

    def _accepting(self) -> bool:
        return all(place.accepting for stage in self._stages for place in stage)

    def _status(self) -> str:
        if self._reload_failed and not self._draining:
            return "the configuration was not reloaded; see the log"
        places = ", ".join(f"{place.name} ({place.connections})" for stage in self._stages for place in stage)
        return f"{self._about}{'draining' if self._draining else 'listening on'} (connections): {places}"

    def stopService(self) -> Deferred[bool]:
        """Drain; the process will end with status 1 if something was still under way at the timeout.

        :returns: fires with whether all finished in time.
        """
        super().stopService()
        self._draining = True
        self._at_stop()
        self._notifier.stopping(self._status(), self._delay() + self._drain_timeout() + _LAST_SECONDS)
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> bool:
        await self._wait()
        until = self._reactor.seconds() + self._drain_timeout()
        complete = True
        for stage in self._stages:
            left = max(until - self._reactor.seconds(), 0.0)
            stopping: list[Deferred[Any]] = [Deferred.fromCoroutine(self._stop(place, left)) for place in stage]
            complete = all(await gatherResults(stopping)) and complete
        for call in self._at_end:
            complete = await self._call_at_end(call) and complete
        self._instruments.end()
        if not complete and self.parent is not None:
            _end_process_with(1)
        return complete

    async def _wait(self) -> None:
        """Serve on for a while, so that whoever watches the daemon's readiness can send its clients elsewhere."""
        seconds = self._delay()
        if seconds:
            self._delaying = Deferred()
            later = self._reactor.callLater(seconds, self._end_delay)
            await self._delaying
            if later.active():
                later.cancel()

    def _end_delay(self) -> None:
        delaying, self._delaying = self._delaying, None
        if delaying is not None:
            delaying.callback(None)

    @staticmethod
    async def _stop(place: Place, timeout: float) -> bool:
        """Stop one place; a defect in it is no reason to leave the others as they are."""
        try:
            return await place.stop(timeout)
        except Exception:
            _log.failure("{place} did not stop as it should", event="callback_failed", place=place.name)
            return False

    @staticmethod
    async def _call_at_end(call: Callable[[], object]) -> bool:
        """Call, and wait for it; whether it did not fail."""
        try:
            ending = call()
            if isinstance(ending, Deferred):
                await ending
        except Exception:
            _log.failure("the daemon did not end as it should", event="callback_failed")
            return False
        return True

    def _own_process(self) -> None:
        """twistd has started: install signal handlers."""
        if self._takes_signals:
            signals.take(self._reactor, self._terminate, self._hang_up)
        else:
            signals.ignore()
        # What has been allocated by now stays: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def _hang_up(self) -> None:
        if self._draining:
            return  # What is left of the requests under way keeps its configuration.
        if self._reloading:
            self._reload_again = True
        else:
            self._reloading = True
            Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> None:
        """Reload, once more if SIGHUP came again; whatever happens, the service manager hears that it is over."""
        if self._ready:
            self._notifier.reloading()
        try:
            successful = self.reload()
            if isinstance(successful, Deferred):
                successful = await successful
        except Exception:
            _log.failure("the reload failed", event="callback_failed")
            successful = False
        self._reload_failed = not successful
        if self._reload_again:
            self._reload_again = False
            await self._reload()
            return
        self._reloading = False
        if self._ready and not self._draining:
            self._notifier.ready(self._status())

    def _terminate(self, number: int) -> None:
        name = signal.Signals(number).name
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            _log.warn("{signal} again: ending at once", event="ending_at_once", signal=name)
            for stage in self._stages:
                for place in stage:
                    place.abort()
            self._end_delay()
        else:
            seconds = self._delay() + self._drain_timeout()
            _log.info("{signal}: draining, for at most {seconds:g} s", event="draining", signal=name, seconds=seconds)


def _end_process_with(status: int) -> None:
    """End with *status* when Python exits: twistd would end with 0 whatever its services say."""

    def end() -> None:
        sys.stdout.flush()
        os._exit(status)

    atexit.register(end)
