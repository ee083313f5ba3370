"""Metrics over HTTP, in Prometheus's text format or OpenMetrics as the scraper asks for (Accept)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.server import Request

from nitroproxy.telemetry.health import LocalRoot, answer_later
from nitroproxy.telemetry.metrics import Metrics, labelled, merge
from nitroproxy.telemetry.scrape import read_metrics

_log: Final = Logger()

#: Gives what a daemon counts, in all its processes.
Collect = Callable[[], Coroutine[Any, Any, Sequence[Metric]]]


class _Collected:
    """What an encoder asks of a registry."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


class MetricsResource(LocalRoot):
    """Serves what *collect* gives."""

    isLeaf = True

    def __init__(self, hop: str, collect: Callable[[], Awaitable[Sequence[Metric]]]) -> None:
        super().__init__(hop)
        self._collect = collect

    def render_GET(self, request: Request) -> int:
        """Collect, then answer."""
        return answer_later(request, self._answer(request), self._hop)

    async def _answer(self, request: Request) -> bytes:
        families = await self._collect()
        encode, content_type = _encoder(request.getHeader("Accept") or "")
        request.setHeader("Content-Type", content_type)
        return encode(_Collected(families))


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """The encoder and the content type for an Accept field. prometheus_client raises for some versions that are not
    numbers; the answer is then the same as without Accept."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


async def own_metrics(metrics: Metrics) -> Sequence[Metric]:
    """What one daemon counts."""
    return metrics.collect()


async def metrics_of_both(
    collect: Collect, ask_peer: Callable[[], Awaitable[bytes | None]], processes: int = 1
) -> Sequence[Metric]:
    """What the host daemon counts and what the enclave's does; ``nitroproxy_up`` of the enclave is 0 when it does not
    answer.

    :param collect: gives what the host daemon counts.
    :param ask_peer: gives the enclave's metrics in the text format, or None.
    :param processes: how many processes the enclave daemon is said to have: see `read_metrics`.
    """
    theirs: list[Metric] = []
    collecting = Deferred.fromCoroutine(collect())
    body = await ask_peer()
    own = await collecting
    if body is not None:
        try:
            theirs = read_metrics(body, processes)
        except ValueError as error:
            _log.warn("the enclave's metrics cannot be read: {error}", event="metrics_unreadable", error=str(error))
            body = None
    up = GaugeMetricFamily("nitroproxy_up", "Whether the daemon of that role answered this scrape.", labels=["role"])
    up.add_metric(["host"], 1)
    up.add_metric(["enclave"], 0 if body is None else 1)
    return merge([up, *own, *(labelled(family, {"role": "enclave"}) for family in theirs)])
