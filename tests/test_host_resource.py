"""What the gateway's pages make of an enclave that answers too much."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.host.resource import HealthOfHost, MetricsOfBoth
from nitroproxy.telemetry.health import Health
from nitroproxy.telemetry.metrics import Metrics
from tests.wire import OneHop

FOUR_MEGABYTES = b'nitroproxy_requests_total{hop="x"} 1\n' * (4_000_000 // 37)


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
        collect = MetricsOfBoth(Metrics("host", "1"), self.hop.pool, self.hop.deadlines)
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

    def test_health_too_long(self) -> None:
        """A health document has a limit too: the enclave fails."""
        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", verifies=True)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.assertFalse(self.answer(b" " * 100_000))
        self.assertEqual(self.successResultOf(examining).checks["enclave"].status, "fail")
