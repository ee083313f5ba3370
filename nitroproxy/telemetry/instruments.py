"""What watches one process of a daemon: its log, its metrics, the lag of its reactor; assembled for the composition
roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from nitroproxy.proxy.observer import Observer, Observers
from nitroproxy.telemetry.access import AccessLog
from nitroproxy.telemetry.lag import ReactorLag
from nitroproxy.telemetry.logs import EventLog, Lines, journal_reads
from nitroproxy.telemetry.metrics import ConnectMetrics, HopMetrics, Metrics, one_counter

#: Seconds that the reader of the log may take for the last lines.
_LAST_LINES: Final = 1.0


class Instruments:
    """The instruments of one process of a daemon.

    :param role: ``host``, ``enclave`` or ``credentials``.
    :param level: the least severe level that is logged.
    :param form: of log lines, ``text`` or ``json``.
    :param access: whether each exchange is logged.
    :param output: the descriptor to log to.
    :param worker: which of the daemon's processes this is: see `Metrics`. A worker marks its log lines.
    :param takers: given the fields of each log event, besides the process's own output.
    """

    def __init__(
        self,
        clock: IReactorTime,
        role: str,
        version: str,
        *,
        level: str,
        form: str,
        access: bool,
        output: int,
        worker: int | None = None,
        takers: Sequence[Callable[[Mapping[str, Any]], object]] = (),
    ) -> None:
        marks = {"worker": worker} if worker else {}
        priorities = journal_reads(output, os.environ.get("JOURNAL_STREAM"))
        self.lines = Lines(form, output, priorities=priorities, marks=marks)
        self.log = EventLog(level, [self.lines.take, *takers], marks)
        self.log.active = False  # Until it is made the daemon's log.
        self.lag = ReactorLag(clock)
        self.metrics = Metrics(role, version, worker)
        dropped = one_counter("log_lines_dropped", "Log lines lost before they left.", lambda: self.lines.sink.dropped)
        self.metrics.sources += [self.lag.collect, dropped]
        self._access = access
        self._seconds = clock.seconds

    def observer(self, hop: str) -> Observer:
        """An observer for the listeners of *hop*, which counts and logs their exchanges. Once for each hop."""
        counts = HopMetrics(hop)
        self.metrics.sources.append(counts.collect)
        return Observers(counts, AccessLog(hop, self.log, self._seconds)) if self._access else counts

    def watch_connects(self, peer: str) -> Callable[[Failure | None], object]:
        """A counter of the connections to *peer*, for a `HopEndpoint`. Once for each peer."""
        counts = ConnectMetrics(peer)
        self.metrics.sources.append(counts.collect)
        return counts.tried

    def end(self) -> None:
        """Stop measuring, and `flush`."""
        self.lag.stop()
        self.flush()

    def flush(self) -> None:
        """Write the log lines that wait; blocks for at most a second."""
        self.lines.sink.flush(_LAST_LINES)
