"""The gateway's own pages: what is served where, and what they make of an enclave that answers too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.host.pages import HealthOfHost, MetricsOfBoth, gateway_site
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.health import Check, Health
from nitroproxy.telemetry.metrics import Metrics
from tests.wire import OneHop, split_head

FOUR_MEGABYTES = b'nitroproxy_requests_total{hop="x"} 1\n' * (4_000_000 // 37)


class PagesTests(SynchronousTestCase):
    """Without an enclave: health and metrics are not asked for here."""

    def setUp(self) -> None:
        nobody: Any = None
        self.site = gateway_site(HealthOfHost(nobody, nobody, "", verifies=True), nobody, "1<2")

    def route(self, request: Request) -> Route:
        return Local(self.site)

    def ask(self, method: bytes, target: bytes) -> tuple[bytes, bytes]:
        client = OneHop(self.route).client()
        client.receive(method + b" " + target + b" HTTP/1.1\r\nHost: gateway.example\r\n\r\n")
        start, _, body = split_head(client.take())
        return start.split(b" ")[1], body

    def test_index(self) -> None:
        """The slash says how to use the gateway, by its own name; a query changes nothing."""
        for target in (b"/", b"/?x=y"):
            status, body = self.ask(b"GET", target)
            self.assertEqual(status, b"200")
            self.assertIn(b"curl http://gateway.example/https://httpbin.org/get", body)
            self.assertIn(b"nitroproxy 1&lt;2", body)

    def test_index_methods(self) -> None:
        """HEAD is the page without its body; nothing else is known there."""
        self.assertEqual(self.ask(b"HEAD", b"/"), (b"200", b""))
        self.assertEqual(self.ask(b"POST", b"/")[0], b"405")

    def test_nothing_below_the_index(self) -> None:
        """What begins with two slashes is no page: nobody takes a mistyped URL for answered."""
        for target in (b"//", b"//x", b"//host/path", b"//https/host"):
            self.assertEqual(self.ask(b"GET", target)[0], b"404", target)


@implementer(ILogObserver)
class Noted:
    """The names of the events that were logged."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if "event" in event:
            self.names.append(event["event"])


class EnclaveTests(SynchronousTestCase):
    """Pages that ask the enclave."""

    def setUp(self) -> None:
        self.hop = OneHop()
        noted = Noted()
        self.events = noted.names
        globalLogPublisher.addObserver(noted)
        self.addCleanup(globalLogPublisher.removeObserver, noted)

    def answer(self, body: bytes) -> bool:
        """Let the enclave answer with *body*; whether it was read to its end."""
        wire = self.hop.endpoint.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 65536):
            if wire.aborted:
                return False
            wire.receive(body[start : start + 65536])
        return True

    def up(self, body: bytes) -> tuple[bool, float]:
        collect = MetricsOfBoth(lambda: own_metrics(Metrics("host", "1")), self.hop.pool, self.hop.deadlines)
        collecting: Deferred[Sequence[Metric]] = Deferred.fromCoroutine(collect())
        read = self.answer(body)
        families = {family.name: family for family in self.successResultOf(collecting)}
        [up] = [sample.value for sample in families["nitroproxy_up"].samples if sample.labels["role"] == "enclave"]
        return read, up

    def test_metrics_too_long(self) -> None:
        """Four megabytes of metrics are not waited for, nor read: the enclave is not up, and the log says why."""
        self.assertEqual(self.up(FOUR_MEGABYTES), (False, 0))
        self.assertEqual(self.events, ["metrics_unreadable"])

    def test_metrics_odd(self) -> None:
        """Nor are metrics taken that are not such as ours."""
        self.assertEqual(self.up(b'# TYPE nitroproxy_errors_total counter\nnitroproxy_errors_total{a="\\n"} 1\n')[1], 0)
        self.assertEqual(self.events, ["metrics_unreadable"])

    def test_workers(self) -> None:
        """With several processes health tells of them too, whatever the enclave says of its own."""

        async def workers() -> Check:
            return Check("warn", "of 2 workers these do not answer: 2")

        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", verifies=True, workers=workers)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.answer(b'{"checks": {"workers": [{"status": "pass"}]}}')
        health = self.successResultOf(examining)
        self.assertEqual((health.checks["workers"].status, health.status), ("warn", "warn"))

    def test_health_too_long(self) -> None:
        """A health document has a limit too: the enclave fails."""
        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", verifies=True)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.assertFalse(self.answer(b" " * 100_000))
        self.assertEqual(self.successResultOf(examining).checks["enclave"].status, "fail")
