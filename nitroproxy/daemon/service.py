"""A daemon's life: it listens, is told to stop, drains, and ends with a status that says how that went.

`host.service` and `enclave.service` make a `Daemon` of their places. It knows nothing of what these serve.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from nitroproxy.daemon.place import Unable
from nitroproxy.daemon.reactor import keeps_monotonic_time
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.telemetry.instruments import Instruments

_log: Final = Logger()

#: Seconds that the end may take once everything has drained.
_LAST_SECONDS: Final = 15.0


class Place(Protocol):
    """Where the daemon listens: a `ListeningPlace`, or what stands for those of other processes."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def listen(self) -> None:
        """Listen now; ends the process if that cannot be."""

    async def stop(self, timeout: float) -> bool:
        """Listen no more, and drain; whether all finished within *timeout* seconds."""

    @property
    def accepting(self) -> bool:
        """Whether new connections are taken."""

    @property
    def connections(self) -> int:
        """How many are open."""

    def abort(self) -> None:
        """End every connection now."""


class Daemon(Service):
    """A daemon, as the service that twistd runs.

    :param stages: its places, in the order in which they stop: those of one stage together, and each stage only when
        the requests of the one before have finished, which may still need the later ones.
    :param instruments: its log, where twistd runs the daemon, and the lag of the reactor.
    :param notifier: tells the service manager.
    :param drain_timeout: gives the seconds for all of the stopping.
    :param at_end: called, and waited for, one after the other when everything has stopped, to put away what requests
        needed until then.
    :param at_start: called when it listens; what it gives fires when the daemon is ready, or fails with the reason for
        which it cannot be.
    :param about: what the status line says first.
    :param obeys: it takes signals; False: whoever started the process tells it what to do in another way.
    :ivar reload: does what SIGHUP asks for; gives whether it could.
    """

    reload: Callable[[], bool | Deferred[bool]]

    def __init__(
        self,
        reactor: Any,
        stages: Sequence[Sequence[Place]],
        instruments: Instruments,
        notifier: Notifier,
        drain_timeout: Callable[[], float],
        at_end: Sequence[Callable[[], object]],
        *,
        at_start: Callable[[], Deferred[None]] = lambda: succeed(None),
        about: str = "",
        obeys: bool = True,
    ) -> None:
        self._reactor = reactor
        self._stages = stages
        self._instruments = instruments
        self._notifier = notifier
        self._drain_timeout = drain_timeout
        self._at_end = at_end
        self._at_start = at_start
        self._about = about
        self._obeys = obeys
        self._draining = False
        self._reload_failed = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join *parent*; as part of twistd's application the daemon brings its log observer along and sees to
        signals."""
        if isinstance(parent, Componentized):
            if parent.getComponent(ILogObserver) is None:
                parent.setComponent(ILogObserver, self._instruments.log)
                self._instruments.log.active = True
                # twistd forks when it goes to the background; what waits is not to be lost with the parent.
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
        """Begin to look after oneself; the service manager hears of it."""
        super().startService()
        if not keeps_monotonic_time(self._reactor):
            _log.warn(
                "this reactor keeps time by the system's clock: when that is set, timeouts come early or late and the"
                " watchdog may end the daemon; run twistd with --reactor=nitroproxy",
                event="clock_not_monotonic",
            )
        self._instruments.lag.start(self._beat)
        self._at_start().addCallbacks(lambda _: self._notifier.ready(self._status()), self._cannot_start)

    def _cannot_start(self, failure: Failure) -> None:
        print(failure.getErrorMessage(), file=sys.__stderr__, flush=True)
        _end_process_with(1)
        with contextlib.suppress(ReactorNotRunning):  # It has been told to stop meanwhile.
            self._reactor.stop()

    def _beat(self) -> None:
        """The reactor turns. While it does and every place accepts, the watchdog is told so."""
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
        self._notifier.stopping(self._status(), self._drain_timeout() + _LAST_SECONDS)
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> bool:
        until = self._reactor.seconds() + self._drain_timeout()
        complete = True
        try:
            for stage in self._stages:
                left = max(until - self._reactor.seconds(), 0.0)
                stopping: list[Deferred[Any]] = [Deferred.fromCoroutine(place.stop(left)) for place in stage]
                complete = all(await gatherResults(stopping)) and complete
        finally:
            for call in self._at_end:
                ending = call()
                if isinstance(ending, Deferred):
                    await ending
            self._instruments.end()
        if not complete and self.parent is not None:
            _end_process_with(1)
        return complete

    def _own_process(self) -> None:
        """The daemon has the process to itself."""
        self._take_signals()
        # What there is by now stays: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    # Signals. The reactor's own handlers would have twistd die of the signal in the end: no status of ours.

    def _take_signals(self) -> None:
        if not self._obeys:
            # A service manager or a terminal sends them to the whole group.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self._reactor.callFromThread(self._terminate, number))
        signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(self._hang_up))

    def _hang_up(self) -> None:
        Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> None:
        self._notifier.reloading()
        successful = self.reload()
        if isinstance(successful, Deferred):
            successful = await successful
        self._reload_failed = not successful
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
        else:
            seconds = self._drain_timeout()
            _log.info("{signal}: draining, for at most {seconds:g} s", event="draining", signal=name, seconds=seconds)


def _end_process_with(status: int) -> None:
    """twistd ends with 0 whatever its services say: have the last word when Python exits."""

    def end() -> None:
        sys.stdout.flush()
        os._exit(status)

    atexit.register(end)
