"""The last quarter of an hour of a daemon's traffic: a sample every few seconds, made of what its metrics count.

Knows nothing of where the metrics come from. What a process counts begins again at 0 when it is started again; each is
therefore compared with what it said itself before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import Metric

#: Seconds between two samples, and how many are kept.
INTERVAL: Final = 5.0
COUNT: Final = 180

_REQUESTS: Final = "nitroproxy_requests"
_DURATIONS: Final = "nitroproxy_request_duration_seconds"
_OPEN: Final = "nitroproxy_connections_open"
_LAG: Final = "nitroproxy_reactor_lag_seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """Traffic since the sample before.

    :ivar rate: requests and tunnels that ended, each second.
    :ivar failed: the part of them, from 0 to 1, that were answered with 500 and above; None without any.
    :ivar median: seconds within which half of the requests were over; None without any. *slow*: within which 99 of 100.
    :ivar connections: how many are open.
    """

    rate: float
    failed: float | None
    median: float | None
    slow: float | None
    connections: float


@dataclass(slots=True)
class _Counts:
    """What one process has counted since its start."""

    requests: float
    failed: float
    buckets: dict[float, float]


class Samples:
    """The samples of one hop.

    :param hop: its name.
    """

    def __init__(self, hop: str) -> None:
        self._hop = hop
        self._ring: deque[Sample | None] = deque(maxlen=COUNT)
        self._before: dict[str, _Counts] | None = None
        self._last = 0.0

    def take(self, families: Iterable[Metric] | None, now: float) -> None:
        """Take a sample.

        :param families: what all processes of the daemon count; None: it did not say.
        :param now: the time of a monotonic clock, in seconds.
        """
        if self._ring:
            # Samples that nobody took, as the process stood still, are missing and not zero.
            missed = min(round((now - self._last) / INTERVAL) - 1, COUNT)
            self._ring.extend([None] * missed)
        elapsed, self._last = now - self._last, now
        if families is None:
            self._before = None
            self._ring.append(None)
            return
        counts, connections = self._read(families)
        before = self._before
        # A process that did not answer is compared with what it said last.
        self._before = {**(before or {}), **counts}
        self._ring.append(_sample(before, counts, connections, elapsed) if before is not None else None)

    def tell(self) -> Sequence[Sample | None]:
        """The samples, oldest first; None where there is none."""
        return list(self._ring)

    def _read(self, families: Iterable[Metric]) -> tuple[dict[str, _Counts], float]:
        counts: dict[str, _Counts] = {}
        connections = 0.0
        for family in families:
            if family.name not in (_REQUESTS, _DURATIONS, _OPEN):
                continue
            for name, labels, value, *_ in family.samples:
                if labels.get("hop") != self._hop:
                    continue
                if family.name == _OPEN:
                    connections += value
                else:
                    _count(counts, name, labels, value)
        return counts, connections


class Lags:
    """How late the timers of a daemon's processes have fired between the last two samples."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._before: dict[str, dict[float, float]] = {}
        self._latest: float | None = None

    def take(self, families: Iterable[Metric]) -> None:
        """Take a sample; see `Samples.take`."""
        found: dict[str, dict[float, float]] = {}
        for family in families:
            if family.name != _LAG:
                continue
            for name, labels, value, *_ in family.samples:
                if name == f"{_LAG}_bucket" and labels.get("role") == self._role:
                    found.setdefault(labels.get("worker", ""), {})[float(labels["le"])] = value
        before = self._before
        self._before = {**before, **found}
        lags = [quantile(_since(before.get(process, {}), buckets), 0.99) for process, buckets in found.items()]
        self._latest = max((lag for lag in lags if lag is not None), default=None)

    def tell(self) -> float | None:
        """Seconds by which 99 of 100 were late at most, in the process where that is longest; None if not known."""
        return self._latest


def _since(before: Mapping[float, float], now: Mapping[float, float]) -> dict[float, float]:
    """What *now* has more than *before*, unless it began again since."""
    if any(count < before.get(bound, 0.0) for bound, count in now.items()):
        return dict(now)
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def _count(counts: dict[str, _Counts], name: str, labels: Mapping[str, str], value: float) -> None:
    """Add one sample of a family to what its process has counted."""
    of_process = counts.setdefault(labels.get("worker", ""), _Counts(0.0, 0.0, {}))
    if name == f"{_REQUESTS}_total":
        of_process.requests += value
        of_process.failed += value if labels.get("code") == "5xx" else 0.0
    elif name == f"{_DURATIONS}_bucket":
        of_process.buckets[float(labels["le"])] = value


def _sample(before: Mapping[str, _Counts], counts: Mapping[str, _Counts], connections: float, elapsed: float) -> Sample:
    requests = failed = 0.0
    buckets: dict[float, float] = {}
    for process, now in counts.items():
        then = before.get(process)
        if then is None or now.requests < then.requests:
            then = _Counts(0.0, 0.0, {})
        requests += now.requests - then.requests
        failed += now.failed - then.failed
        for bound, count in _since(then.buckets, now.buckets).items():
            buckets[bound] = buckets.get(bound, 0.0) + count
    rate = requests / elapsed if elapsed > 0 else 0.0
    share = failed / requests if requests else None
    return Sample(
        round(rate, 3),
        _rounded(share),
        _rounded(quantile(buckets, 0.5)),
        _rounded(quantile(buckets, 0.99)),
        connections,
    )


def _rounded(value: float | None) -> float | None:
    """A value of at most 1 to four digits and a larger one to tenths of milliseconds: documents hold hundreds."""
    return None if value is None else round(value, 4)


def quantile(buckets: Mapping[float, float], part: float) -> float | None:
    """The value that the *part* of all are at most, as Prometheus's ``histogram_quantile`` estimates it.

    :param buckets: how many are at most each bound; the last is infinite.
    :returns: None when there are none.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = part * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds[:-1]:
        if buckets[bound] >= wanted:
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower
