"""What watches one daemon: its log, its metrics, the lag of its reactor; put together for the composition roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from nitroproxy.proxy.record import Observer, Observers
from nitroproxy.telemetry.access import AccessLog
from nitroproxy.telemetry.lag import ReactorLag
from nitroproxy.telemetry.logs import EventLog, Lines, journal_reads
from nitroproxy.telemetry.metrics import ConnectMetrics, HopMetrics, Metrics, one_counter

#: Seconds that whoever reads the log may take for the last lines.
_LAST_LINES: Final = 1.0


class Instruments:
    """The instruments of one daemon.

    :param role: ``host`` or ``enclave``.
    :param level: the least severe level that is logged.
    :param form: of log lines, ``text`` or ``json``.
    :param access: whether each exchange is logged.
    :param worker: which of the daemon's processes this is, for its log lines; 0: the only one, or the first.
    :param output: the descriptor to log to.
    :ivar takers: given the fields of each log event; the daemon's own output is the first.
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
        worker: int = 0,
    ) -> None:
        priorities = journal_reads(output, os.environ.get("JOURNAL_STREAM"))
        self.lines = Lines(form, output, priorities=priorities, marks={"worker": worker} if worker else {})
        self.takers: list[Callable[[Mapping[str, Any]], object]] = [self.lines.take]
        self.log = EventLog(level, self.takers)
        self.log.active = False  # Until it is made the daemon's log.
        self.lag = ReactorLag(clock)
        self.metrics = Metrics(role, version)
        dropped = one_counter("log_lines_dropped", "Log lines lost before they left.", lambda: self.lines.sink.dropped)
        self.metrics.sources += [self.lag.collect, dropped]
        self._access = access

    def observer(self, hop: str) -> Observer:
        """Watches the listeners of *hop*."""
        counts = HopMetrics(hop)
        self.metrics.sources.append(counts.collect)
        return Observers(counts, AccessLog(hop, self.log)) if self._access else counts

    def watch_connects(self, peer: str) -> Callable[[Failure | None], object]:
        """Counts the connections to *peer*: give it to a `HopEndpoint`."""
        counts = ConnectMetrics(peer)
        self.metrics.sources.append(counts.collect)
        return counts.tried

    def end(self) -> None:
        """Look no more, and write what waits to be written."""
        self.lag.stop()
        self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        self.lines.sink.flush(_LAST_LINES)
