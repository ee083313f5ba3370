"""The outcome of a demonstration: values only, and the arithmetic on them.

It knows neither how requests are sent nor how a report looks.
"""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby


class Outcome(enum.Enum):
    """How a case ended. Skipped is not passed, and is shown."""

    PASSED = "passed"
    FAILED = "failed"
    """The answer was not what it has to be."""
    ERROR = "error"
    """There was no answer to judge: a lost connection, a timeout, a fault of the demonstration itself."""
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CaseResult:
    """One case, done.

    :ivar name: what `--only` calls it.
    :ivar title: one sentence saying what it shows.
    :ivar status: the HTTP status of its last answer, or None if there was none.
    :ivar milliseconds: its duration, all its requests together.
    :ivar size: bytes of bodies, sent and received.
    :ivar detail: one sentence on what was seen.
    :ivar latencies: the duration of each of its requests in milliseconds, if it made many at once.
    :ivar not_tried: it was skipped because an earlier case found that what it needs cannot be reached.
    """

    name: str
    title: str
    outcome: Outcome
    status: int | None
    milliseconds: float
    size: int
    detail: str
    latencies: tuple[float, ...] = ()
    not_tried: bool = False


@dataclass(frozen=True)
class Report:
    """A whole run.

    :ivar canary: the text that was planted in the run's requests, for a search of captures and logs.
    """

    proxy: str
    target: str
    canary: str
    started: datetime.datetime
    milliseconds: float
    results: tuple[CaseResult, ...]

    def count(self, outcome: Outcome) -> int:
        """How many cases ended like this."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def succeeded(self) -> bool:
        """No case failed, and at least one passed."""
        return self.count(Outcome.PASSED) > 0 and not self.count(Outcome.FAILED) and not self.count(Outcome.ERROR)

    @property
    def summary(self) -> str:
        """The counts in words: ``12 passed, 1 failed, 2 skipped``."""
        counts = [(outcome, self.count(outcome)) for outcome in Outcome]
        return ", ".join(f"{count} {outcome.value}" for outcome, count in counts if count) or "nothing was tried"

    @property
    def concurrent_latencies(self) -> tuple[float, ...]:
        """The durations in milliseconds of the requests that were made at once, in ascending order; empty unless all of
        them were answered rightly, as the percentiles of a part would mislead."""
        passed = [result for result in self.results if result.outcome is Outcome.PASSED]
        return tuple(sorted(latency for result in passed for latency in result.latencies))

    @property
    def rows(self) -> tuple[CaseResult, ...]:
        """The results for a person: those not tried for one and the same reason are one row."""
        rows: list[CaseResult] = []
        for blocked, group in groupby(self.results, lambda result: result.not_tried and result.detail):
            results = list(group)
            if not blocked or len(results) == 1:
                rows += results
                continue
            name = f"{results[0].name} … {results[-1].name}"
            rows.append(replace(results[0], name=name, title=f"{len(results)} cases."))
        return tuple(rows)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of *ascending*, which is sorted and not empty; *percent* is in (0, 100]."""
    return ascending[math.ceil(percent / 100 * len(ascending)) - 1]
