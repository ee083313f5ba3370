"""The life of an enclave: the daemon, then the application, until one of them is over.

`EnclaveInit` decides and starts; the processes, the notifications and the clock are given to it. It ends with the
application's exit status, or, in an enclave without one, with the daemon's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from nitroproxy.enclave.init_children import Child, Command, Start
from nitroproxy.enclave.init_output import LastLines

_log: Final = Logger()

#: Seconds that the daemon may take until it listens, and between two signs of life.
START_TIMEOUT: Final = 120.0
WATCHDOG_SECONDS: Final = 10.0
#: Seconds before a daemon that has ended is started again: at first, and at most.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
#: Seconds beyond its own drain timeout after which a daemon that was told to end is killed.
_GRACE: Final = 5.0


@dataclass(frozen=True)
class Plan:
    """What runs in the enclave.

    :ivar application: None when the enclave is a proxy for its host only.
    :ivar drain_timeout: seconds that the daemon takes at most to end.
    """

    daemon: Command
    application: Command | None
    drain_timeout: float


@dataclass(frozen=True)
class Ending:
    """How the enclave's life ended.

    :ivar status: the exit status.
    :ivar reason: one sentence.
    :ivar output: the last lines of the process that ended it.
    :ivar started: whether the daemon had ever been ready.
    """

    status: int
    reason: str
    output: str
    started: bool


class EnclaveInit:
    """Runs a plan.

    :param start: starts a process.
    :param on_application_line: given the stream's name and each line that the application prints.
    :param on_daemon_line: the same for the daemon.
    """

    def __init__(
        self,
        clock: IReactorTime,
        start: Start,
        plan: Plan,
        on_application_line: Callable[[str, str], object],
        on_daemon_line: Callable[[str, str], object],
    ) -> None:
        self._clock = clock
        self._start = start
        self._plan = plan
        self._on_application_line = on_application_line
        self._on_daemon_line = on_daemon_line
        self._done: Deferred[Ending] = Deferred()
        self._daemon: Child | None = None
        self._application: Child | None = None
        self._daemon_said = LastLines()
        self._application_said = LastLines()
        self._patience: IDelayedCall | None = None
        self._later: IDelayedCall | None = None
        self._ready = False
        self._ever_ready = False
        self._stopping = False
        self._pause = _FIRST_PAUSE
        self._ending: Ending | None = None

    def run(self) -> Deferred[Ending]:
        """Start the daemon. To be called once; fires when everything has ended."""
        self._start_daemon()
        return self._done

    def ready(self) -> None:
        """The daemon listens on all its ports."""
        if self._daemon is None or self._ready or self._ending is not None:
            return
        first = not self._ever_ready
        self._ready = self._ever_ready = True
        self.alive()
        _log.info("the daemon is ready", event="daemon_ready")
        if first and self._plan.application is not None and not self._stopping:
            self._start_application(self._plan.application)

    def alive(self) -> None:
        """The daemon's reactor turns. Also the proof that a restarted daemon stays up."""
        if self._daemon is None or not self._ready:
            return
        self._await("it has shown no sign of life", WATCHDOG_SECONDS)

    def stop(self) -> None:
        """End the application, then the daemon, by SIGTERM. A further call sends the signal again."""
        self._stopping = True
        if self._application is not None:
            self._application.signal(signal.SIGTERM)
        elif self._daemon is None:
            self._finish(Ending(0, "the enclave was told to stop", "", self._ever_ready))
        else:
            self._daemon.signal(signal.SIGTERM)

    def _start_daemon(self) -> None:
        self._later = None
        self._daemon_said = LastLines()
        try:
            self._daemon = self._start(self._plan.daemon, self._daemon_line, self._daemon_ended)
        except OSError as error:
            self._finish(self._failure(f"the daemon cannot be started: {error.strerror}", 1))
            return
        self._await("it is not ready", START_TIMEOUT)

    def _await(self, reason: str, seconds: float) -> None:
        """Kill the daemon in so many *seconds*, unless this is called again."""
        self._be_patient()
        self._patience = self._clock.callLater(seconds, self._lose_patience, reason, seconds)

    def _be_patient(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None

    def _lose_patience(self, reason: str, seconds: float) -> None:
        _log.error(
            "killing the daemon: {reason} after {seconds:g} seconds",
            event="daemon_killed",
            reason=reason,
            seconds=seconds,
        )
        if self._daemon is not None:
            # A core dump is of no use in an enclave; the traceback of faulthandler is.
            self._daemon.signal(signal.SIGABRT if self._ready else signal.SIGKILL)
            self._patience = self._clock.callLater(_GRACE, self._daemon.signal, signal.SIGKILL)

    def _daemon_line(self, stream: str, line: str) -> None:
        self._daemon_said.add(line)
        self._on_daemon_line(stream, line)

    def _application_line(self, stream: str, line: str) -> None:
        self._application_said.add(line)
        self._on_application_line(stream, line)

    def _daemon_ended(self, status: int) -> None:
        self._be_patient()
        daemon, self._daemon = self._daemon, None
        was_ready, self._ready = self._ready, False
        if self._ending is not None:
            self._finish(self._ending)
        elif self._stopping and self._application is None:
            self._finish(Ending(status, f"the daemon was told to stop and ended with {status}", "", self._ever_ready))
        elif not self._ever_ready:
            self._finish(self._failure(f"the daemon ended with {status} before it was ready", status or 1))
        else:
            self._restart(daemon, status, was_ready)

    def _restart(self, daemon: Child | None, status: int, was_ready: bool) -> None:
        self._pause = _FIRST_PAUSE if was_ready else min(self._pause * 2, _LONGEST_PAUSE)
        _log.error(
            "the daemon ended with {status}; starting it again in {pause:g} s: {output}",
            event="daemon_ended",
            status=status,
            pause=self._pause,
            output=str(self._daemon_said),
        )
        self._later = self._clock.callLater(self._pause, self._start_again, daemon)

    def _start_again(self, daemon: Child | None) -> None:
        if daemon is not None:
            daemon.kill_left()  # A worker that hangs outlives its supervisor, and has the ports.
        self._start_daemon()

    def _start_application(self, command: Command) -> None:
        try:
            self._application = self._start(command, self._application_line, self._application_ended)
        except OSError as error:
            reason = f"the application {command.words[0]} cannot be started: {error.strerror}"
            self._end_with(Ending(126, reason, "", started=True))
            return
        _log.info("the application {name} is started", event="application_started", name=command.words[0])

    def _application_ended(self, status: int) -> None:
        self._application = None
        self._end_with(
            Ending(status, f"the application ended with {status}", str(self._application_said), started=True)
        )

    def _end_with(self, ending: Ending) -> None:
        """The end is decided; the daemon finishes what is under way first."""
        self._ending = ending
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._daemon is None:
            self._finish(ending)
            return
        self._be_patient()
        self._daemon.signal(signal.SIGTERM)
        timeout = self._plan.drain_timeout + _GRACE
        self._patience = self._clock.callLater(timeout, self._daemon.signal, signal.SIGKILL)

    def _failure(self, reason: str, status: int) -> Ending:
        return Ending(status, reason, str(self._daemon_said), started=False)

    def _finish(self, ending: Ending) -> None:
        self._be_patient()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._done.called:
            self._done.callback(ending)
