"""Metrics of both daemons in one scrape."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.exposition import MetricsResource, metrics_of_both, own_metrics
from nitroproxy.telemetry.health import LocalRoot
from nitroproxy.telemetry.metrics import SUPERVISOR, HopMetrics, Metrics, merge
from tests.wire import GET, OneHop, split_head


class ScrapeTests(SynchronousTestCase):
    """What a scraper gets."""

    def setUp(self) -> None:
        self.host, self.enclave = Metrics("host", "1"), Metrics("enclave", "1")
        self.host.sources.append(HopMetrics("nitroproxy-host").collect)
        self.enclave.sources.append(HopMetrics("nitroproxy-enclave").collect)
        self.theirs: bytes | None = self.scrape(lambda: own_metrics(self.enclave), b"")[1]

    def scrape(self, collect: object, accept: bytes) -> tuple[dict[bytes, bytes], bytes]:
        root = LocalRoot("nitroproxy-test")
        root.putChild(b"metrics", MetricsResource("nitroproxy-test", collect))  # type: ignore[arg-type]
        site = Site(root)

        def route(request: Request) -> Route:
            return Local(site)

        client = OneHop(route).client()
        request = GET.replace(b"/thing", b"/metrics")
        client.receive(request.replace(b"\r\n\r\n", b"\r\nAccept: %b\r\n\r\n" % accept) if accept else request)
        start, headers, body = split_head(client.take())
        self.assertEqual(start, b"HTTP/1.1 200 OK")
        return headers, body

    async def both(self) -> Sequence[Metric]:
        async def ask() -> bytes | None:
            return self.theirs

        return await metrics_of_both(lambda: own_metrics(self.host), ask)

    def up(self, body: bytes) -> dict[str, float]:
        families = {family.name: family for family in parse_text(body.decode())}
        return {sample.labels["role"]: sample.value for sample in families["nitroproxy_up"].samples}

    def test_both(self) -> None:
        """One scrape shows both, each sample with its role."""
        headers, body = self.scrape(self.both, b"")
        self.assertTrue(headers[b"content-type"].startswith(b"text/plain"))
        self.assertEqual(self.up(body), {"host": 1, "enclave": 1})
        for role, hop in ((b"host", b"nitroproxy-host"), (b"enclave", b"nitroproxy-enclave")):
            self.assertIn(b'nitroproxy_connections_open{hop="%b",role="%b"} 0.0' % (hop, role), body)
        self.assertEqual(body.count(b"# TYPE nitroproxy_connections_open "), 1)

    def test_openmetrics(self) -> None:
        """A scraper that asks for OpenMetrics gets what a parser of that takes."""
        headers, body = self.scrape(self.both, b"application/openmetrics-text; version=1.0.0")
        self.assertTrue(headers[b"content-type"].startswith(b"application/openmetrics-text"))
        self.assertIn("nitroproxy_requests", {family.name for family in parse_openmetrics(body.decode())})

    def test_enclave_down(self) -> None:
        """An enclave that does not answer, or not metrics, is a metric and not a failed scrape."""
        for self.theirs in (None, b"nonsense{", b"\xff\xfe"):
            self.assertEqual(self.up(self.scrape(self.both, b"")[1]), {"host": 1, "enclave": 0})

    def test_role_cannot_be_claimed(self) -> None:
        """What the enclave says its role is counts for nothing."""
        assert self.theirs is not None
        self.theirs += b'# TYPE nitroproxy_up gauge\nnitroproxy_up{role="host"} 0\n'
        _, body = self.scrape(self.both, b"")
        self.assertIn(b'nitroproxy_up{role="host"} 1.0', body)
        self.assertNotIn(b'nitroproxy_up{role="host"} 0.0', body)

    def test_no_duplicate_series(self) -> None:
        """A hostile enclave that forges the labels role and worker makes no series twice: a scraper would refuse the
        whole page, the host's own part with it (K7)."""
        assert self.theirs is not None
        good = self.theirs
        for forged in (
            b'nitroproxy_requests_in_flight{hop="nitroproxy-enclave",role="host"} 1\n',
            b'nitroproxy_requests_in_flight{hop="nitroproxy-enclave",role="x"} 1\n'
            b'nitroproxy_requests_in_flight{hop="nitroproxy-enclave",role="y"} 1\n',
            b'nitroproxy_requests_in_flight{hop="nitroproxy-host",role="host"} 1\n',
            b'nitroproxy_requests_in_flight{hop="nitroproxy-host",role="host",worker="1"} 1\n',
            b'nitroproxy_build_info{version="1",role="host"} 1\nnitroproxy_build_info{version="1"} 1\n',
        ):
            self.theirs = good + forged
            _, body = self.scrape(self.both, b"")
            series = [line.rpartition(b" ")[0] for line in body.splitlines() if not line.startswith(b"#")]
            self.assertEqual(len(set(series)), len(series), forged)
            host = [line for line in series if b'role="host"' in line]
            self.assertFalse([line for line in host if b"worker" in line], forged)

    def test_several_processes(self) -> None:
        """Processes of the enclave daemon keep their label worker beside the role."""
        workers = [Metrics("enclave", "1", name) for name in (SUPERVISOR, 1, 2)]

        async def all_of_them() -> Sequence[Metric]:
            return merge(family for metrics in workers for family in metrics.collect())

        self.theirs = self.scrape(all_of_them, b"")[1]
        _, body = self.scrape(self.both, b"")
        for name in (b"supervisor", b"1", b"2"):
            self.assertIn(b'nitroproxy_build_info{role="enclave",version="1",worker="%b"} 1.0' % name, body)
        self.assertIn(b'nitroproxy_build_info{role="host",version="1"} 1.0', body)

    def test_failure(self) -> None:
        """A collector that fails is 500, and logged."""

        async def fail() -> Sequence[Metric]:
            raise ValueError

        site_error = Deferred.fromCoroutine(fail())
        site_error.addErrback(lambda failure: None)
        root = LocalRoot("nitroproxy-test")
        root.putChild(b"metrics", MetricsResource("nitroproxy-test", fail))
        site = Site(root)
        client = OneHop(lambda request: Local(site)).client()
        client.receive(GET.replace(b"/thing", b"/metrics"))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
