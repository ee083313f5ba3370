"""Counts what the name server does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from nitroproxy.transparent.answers import Answer, Outcome
from nitroproxy.transparent.names import NameTable

#: Types of records that are a label of their own; any other is "other" (IANA, DNS parameters).
_KINDS: Final = {
    1: "a",
    28: "aaaa",
    5: "cname",
    2: "ns",
    6: "soa",
    12: "ptr",
    15: "mx",
    16: "txt",
    33: "srv",
    64: "svcb",
    65: "https",
}


class DNSMetrics:
    """Counts questions by type and outcome, and names.

    :param table: the names that have an address.
    """

    def __init__(self, table: NameTable) -> None:
        self._table = table
        # What alerts watch is there from the beginning.
        self._questions = Counter({("a", Outcome.NO_MORE_NUMBERS): 0, ("a", Outcome.FAILED): 0})

    def answered(self, kind: int, answer: Answer) -> None:
        """Count a question of that type."""
        self._questions[_KINDS.get(kind, "other"), answer.outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """The families."""
        family = CounterMetricFamily(
            "nitroproxy_dns_questions", "Questions of applications about names.", labels=["kind", "outcome"]
        )
        for (kind, outcome), count in self._questions.items():
            family.add_metric([kind, outcome.value], count)
        yield family
        names = GaugeMetricFamily("nitroproxy_dns_names", "Names that have an address; there is room for 65,536.")
        names.add_metric([], self._table.count())
        yield names
