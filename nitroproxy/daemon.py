"""A daemon's life: it listens, is told to stop, drains, and ends with a status that says how that went.

`host.service` and `enclave.service` make a `Daemon` of their listeners. It knows nothing of what they serve.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError, ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from nitroproxy.notify import Notifier
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.reload import Reloader
from nitroproxy.telemetry.instruments import Instruments

_log: Final = Logger()

#: Seconds that the end may take once everything has drained.
_LAST_SECONDS: Final = 15.0


class Listener:
    """A place where the daemon listens, and the connections that came of it.

    :ivar place: what to call it in messages.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, place: str, factory: DownstreamFactory) -> None:
        self._endpoint = endpoint
        self.place = place
        self._factory = factory
        self._port: IListeningPort | None = None
        self._failure: Failure | None = None

    def listen(self) -> None:
        """Listen now. A place that cannot be had ends the process: a daemon that does not listen is none.

        :raises Unable: after a line that says why.
        """
        self._endpoint.listen(self._factory).addCallbacks(self._listening, self._failed)
        if self._failure is not None:
            exit_with(f"{self._factory.hop}: cannot listen on {self.place}: {_reason(self._failure)}")

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        _log.info("{hop}: listening on {place}", event="listening", hop=self._factory.hop, place=self.place)

    def _failed(self, failure: Failure) -> None:
        self._failure = failure

    async def stop(self, timeout: float) -> bool:
        """Stop listening, let the requests under way finish and end what is left.

        :param timeout: seconds after which what is left is aborted.
        :returns: whether all finished in time.
        """
        port: Any = self._port
        if port is not None and port.connected:
            # Who is in the queue already is let in: closing it would reset them. stopListening would close it a turn of
            # the reactor later.
            port.doRead()
            port.connectionLost(Failure(ConnectionDone()))
        complete = await self._factory.drain(timeout)
        if not complete:
            _log.warn(
                "{hop}: aborted what was under way on {place}", event="aborted", hop=self._factory.hop, place=self.place
            )
        return complete

    @property
    def accepting(self) -> bool:
        """Whether new connections are taken."""
        port: Any = self._port
        return port is not None and port.connected and port in port.reactor.getReaders()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._factory.connections)

    def abort(self) -> None:
        """End every connection now."""
        self._factory.abort()


class Daemon(Service):
    """A daemon, as the service that twistd runs.

    :param stages: its listeners, in the order in which they stop: those of one stage together, and each stage only
        when the requests of the one before have finished, which may still need the later ones.
    :param instruments: its log, where twistd runs the daemon, and the lag of the reactor.
    :param notifier: tells the service manager.
    :param drain_timeout: gives the seconds for all of the stopping.
    :param at_end: called, and waited for, one after the other when everything has stopped, to put away what requests
        needed until then.
    :ivar reload: does what SIGHUP asks for.
    """

    reload: Reloader

    def __init__(
        self,
        reactor: Any,
        stages: Sequence[Sequence[Listener]],
        instruments: Instruments,
        notifier: Notifier,
        drain_timeout: Callable[[], float],
        at_end: Sequence[Callable[[], object]],
    ) -> None:
        self._reactor = reactor
        self._stages = stages
        self._instruments = instruments
        self._notifier = notifier
        self._drain_timeout = drain_timeout
        self._at_end = at_end

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
                for listener in stage:
                    listener.listen()
        except Unable:
            self._instruments.flush()
            raise

    def startService(self) -> None:
        """Begin to look after oneself; the service manager hears of it."""
        super().startService()
        self._instruments.lag.start(self._beat)
        self._notifier.ready(self._status())

    def _beat(self) -> None:
        """The reactor turns. While it does and every listener accepts, the watchdog is told so."""
        if self._accepting():
            self._notifier.ping()
        self._notifier.status(self._status())

    def _accepting(self) -> bool:
        return all(listener.accepting for stage in self._stages for listener in stage)

    def _status(self) -> str:
        listeners = [listener for stage in self._stages for listener in stage]
        places = ", ".join(f"{listener.place} ({listener.connections})" for listener in listeners)
        return f"listening on (connections): {places}"

    def stopService(self) -> Deferred[bool]:
        """Drain; the process will end with status 1 if something was still under way at the timeout.

        :returns: fires with whether all finished in time.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> bool:
        until = self._reactor.seconds() + self._drain_timeout()
        complete = True
        try:
            for stage in self._stages:
                left = max(until - self._reactor.seconds(), 0.0)
                stopping: list[Deferred[Any]] = [Deferred.fromCoroutine(listener.stop(left)) for listener in stage]
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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self._reactor.callFromThread(self._terminate, number))
        signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(self._reload))

    def _reload(self) -> None:
        self._notifier.reloading()
        successful = self.reload()
        self._notifier.ready(self._status() if successful else "the configuration was not reloaded; see the log")

    def _terminate(self, number: int) -> None:
        name = signal.Signals(number).name
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            _log.warn("{signal} again: ending at once", event="ending_at_once", signal=name)
            for stage in self._stages:
                for listener in stage:
                    listener.abort()
        else:
            seconds = self._drain_timeout()
            _log.info("{signal}: draining, for at most {seconds:g} s", event="draining", signal=name, seconds=seconds)
            self._notifier.stopping("draining", seconds + _LAST_SECONDS)


def _reason(failure: Failure) -> str:
    """Why there is no listening, without the place, which an error of Twisted's names again."""
    error: object = failure.value
    if isinstance(error, CannotListenError):
        error = error.socketError
    if str(error) == "Cannot acquire lock":
        return "another daemon has it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _end_process_with(status: int) -> None:
    """twistd ends with 0 whatever its services say: have the last word when Python exits."""

    def end() -> None:
        sys.stdout.flush()
        os._exit(status)

    atexit.register(end)


class Unable(SystemExit, Exception):
    """The daemon cannot be: the process ends with status 1.

    It is an Exception for twistd's sake: in the background twistd tells those, and no others, to the process that
    it was started from, which else waits for ever.
    """

    def __init__(self, message: str) -> None:
        super().__init__(1)
        self._message = message

    def __str__(self) -> str:
        return self._message


def exit_with(message: str) -> NoReturn:
    """The daemon cannot be: end the process with status 1 and one line.

    On the real standard error, which twistd has replaced by its log; in the background there is only the log.

    :raises Unable: always.
    """
    print(message, file=sys.__stderr__, flush=True)
    if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
        _log.critical("{reason}", event="cannot_start", reason=message)
    raise Unable(message)
