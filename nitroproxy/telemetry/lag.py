"""How late the reactor fires its timers: it grows when the daemon has more work than it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from nitroproxy.telemetry.metrics import Distribution

#: Seconds between two measurements.
_INTERVAL: Final = 1.0
_BOUNDS: Final[Sequence[float]] = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class ReactorLag:
    """Measures once a second by how much a timer is late."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._beat: Callable[[], object] = lambda: None
        self._lags = Distribution(_BOUNDS)
        self._due = 0.0
        self._next: IDelayedCall | None = None

    def start(self, beat: Callable[[], object]) -> None:
        """Begin to measure. Called once, when the daemon starts.

        :param beat: called at each measurement; that it is called shows that the reactor runs.
        """
        self._beat = beat
        self._wait()

    def _wait(self) -> None:
        self._due = self._clock.seconds() + _INTERVAL
        self._next = self._clock.callLater(_INTERVAL, self._measure)

    def stop(self) -> None:
        """Stop measuring."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _measure(self) -> None:
        self._lags.add([max(self._clock.seconds() - self._due, 0.0)])
        self._beat()
        self._wait()

    def collect(self) -> Iterator[Metric]:
        """The metric family."""
        family = HistogramMetricFamily("nitroproxy_reactor_lag_seconds", "How late timers fire.", labels=[])
        self._lags.into(family, [])
        yield family
