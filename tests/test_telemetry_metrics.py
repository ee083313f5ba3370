"""What is counted, and how it is told."""

from __future__ import annotations

import errno

from prometheus_client.core import Metric
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.telemetry.lag import ReactorLag
from nitroproxy.telemetry.metrics import (
    LABELS,
    ConnectMetrics,
    HopMetrics,
    Metrics,
    TLSMetrics,
    labelled,
    merge,
    pool_metrics,
)
from tests.wire import GET, OneHop, WaitingEndpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def value(families: list[Metric], name: str, **labels: str) -> float | None:
    """The one sample of that name that has these labels, among others."""
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"nitroproxy_{name}" and labels.items() <= sample.labels.items()
    ]
    return found[0] if len(found) == 1 else None


class Moved:
    """A side of a tunnel."""

    bytes = 0


class HopTests(SynchronousTestCase):
    """One hop's listeners, through the engine."""

    def setUp(self) -> None:
        self.counts = HopMetrics("nitroproxy-test")

    def hop(self, route: object = None) -> OneHop:
        hop = OneHop(route)  # type: ignore[arg-type]
        hop.factory.observer = self.counts
        return hop

    def value(self, name: str, **labels: str) -> float | None:
        return value(list(self.counts.collect()), name, **labels)

    def test_methods_are_a_closed_set(self) -> None:
        """Methods that a client makes up are counted together, and take no memory each."""
        for number in range(50):
            self.counts.ended(Record(0.0, b"id", b"X%d" % number), 1.0)
        rows = [
            sample for family in self.counts.collect() for sample in family.samples if "requests_total" in sample.name
        ]
        self.assertEqual([(row.labels["method"], row.value) for row in rows], [("other", 50)])
        self.assertEqual(len(self.counts._requests), 1)

    def test_not_counted_yet(self) -> None:
        """Requests that are counted together are in every scrape, once; few records are kept for it, and no tunnel's,
        which would keep its connections."""
        for number in range(1, 200):
            record = Record(0.0, b"id", b"GET")
            record.sent = 10
            self.counts.ended(record, 1.0)
            self.assertLess(len(self.counts._uncounted), 100)
            if number % 50 == 0:
                self.assertEqual(self.value("requests_total", method="GET"), number)
                self.assertEqual(self.value("bytes_total", direction="sent", kind="request"), number * 10)
        tunnel = Record(0.0, b"id", b"CONNECT")
        tunnel.sides = Moved(), Moved()
        self.counts.ended(tunnel, 1.0)
        self.assertNotIn(tunnel, [record for record, _ in self.counts._uncounted])

    def test_requests(self) -> None:
        """Requests by method and class of status, their times and sizes, and what is under way."""
        hop = self.hop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        self.assertEqual(self.value("requests_in_flight"), 1)
        hop.pass_time(0.2)
        hop.endpoint.accept().receive(OK)
        self.assertEqual(self.value("requests_total", method="POST", code="2xx"), 1)
        self.assertEqual(self.value("requests_in_flight"), 0)
        self.assertEqual(self.value("connections_open"), 1)
        self.assertEqual(self.value("request_duration_seconds_count"), 1)
        self.assertEqual(self.value("request_duration_seconds_bucket", le="0.1"), 0)
        self.assertEqual(self.value("request_duration_seconds_bucket", le="0.25"), 1)
        self.assertEqual(self.value("bytes_total", direction="received", kind="request"), 5)
        self.assertEqual(self.value("bytes_total", direction="sent", kind="request"), 2)
        client.lose()
        self.assertEqual((self.value("connections_open"), self.value("connections_total")), (0, 1))

    def test_closed_sets(self) -> None:
        """Whatever clients and other hops say, labels are from closed sets (S19)."""
        for method in (b"GET", b"MKACTIVITY", b"\xff", b""):
            record = Record(0.0, b"an-id", method)
            record.host = "secret.example"
            record.failed(ProxyError(Kind.DNS_ERROR, "secret.example", hop="made-up"), "nitroproxy-test")
            self.counts.began(record)
            self.counts.ended(record, 1.0)
        self.assertEqual(self.value("requests_total", method="other", code="none"), 3)
        self.assertEqual(self.value("errors_total", error="dns_error", proxy_status="dns_error", found_by="other"), 4)
        self.assertNotIn("secret", str([family.samples for family in self.counts.collect()]))

    def test_passed_on(self) -> None:
        """A failure that another hop of ours found counts here too, under no kind of its own; what names a hop that
        there is not does not count."""
        for found_by in ("nitroproxy-relay", "nitroproxy-x"):
            hop = self.hop()
            hop.client().receive(GET)
            answer = f"HTTP/1.1 502 No\r\nProxy-Status: {found_by}; error=dns_error\r\nContent-Length: 0\r\n\r\n"
            hop.endpoint.accept().receive(answer.encode())
        labels = {"error": "passed_on", "proxy_status": "dns_error"}
        self.assertEqual(self.value("errors_total", found_by="nitroproxy-relay", **labels), 1)
        self.assertIsNone(self.value("errors_total", found_by="other", **labels))

    def test_ends(self) -> None:
        """What ended requests and tunnels, apart from each other and from a closed set."""
        tunnel = Record(0.0, b"an-id", b"CONNECT")
        tunnel.sides, tunnel.end = (tunnel, tunnel), End.TUNNEL_TIMEOUT  # type: ignore[assignment]
        request = Record(0.0, b"an-id", b"GET")
        gone = Record(0.0, b"an-id", b"GET")
        gone.client_gone = True
        for record in (tunnel, request, request, gone):
            self.counts.ended(record, 1.0)
        self.assertEqual(self.value("ends_total", kind="tunnel", reason="tunnel_timeout"), 1)
        self.assertEqual(self.value("ends_total", kind="request", reason="complete"), 2)
        self.assertEqual(self.value("ends_total", kind="request", reason="client_gone"), 1)

    def test_denials(self) -> None:
        """What this hop's policy refused, by the kind of rule; not what another's did."""
        for kind, rule in (
            (Kind.DESTINATION_DENIED, "deny"),
            (Kind.DESTINATION_NOT_ALLOWED, "allow"),
            (Kind.ADDRESS_DENIED, "address"),
            (Kind.PLAINTEXT_DESTINATION, "plaintext"),
        ):
            self.assertEqual(self.value("policy_denials_total", rule=rule), 0)
            for hop in ("nitroproxy-test", "nitroproxy-relay"):
                record = Record(0.0, b"an-id", b"GET")
                record.failed(ProxyError(kind, "no"), hop)
                self.counts.ended(record, 1.0)
        counts = HopMetrics("nitroproxy-relay")
        record = Record(0.0, b"an-id", b"GET")
        record.failed(ProxyError(Kind.ADDRESS_DENIED, "no"), "nitroproxy-relay")
        counts.ended(record, 1.0)
        self.assertEqual(value(list(counts.collect()), "policy_denials_total", rule="address"), 1)

    def test_refused(self) -> None:
        """Connections turned away, by the reason."""
        self.counts.refused(Kind.PEER_DENIED, IPv4Address("TCP", "192.0.2.1", 1))
        self.assertEqual(self.value("connections_refused_total", reason="peer_denied"), 1)

    def test_told_from_the_start(self) -> None:
        """What alerts are for is 0 before it happens, where it can happen: from nothing to 1 would be no increase."""
        for hop, errors, reasons in (
            ("host", {"enclave_unavailable", "connection_limit_reached"}, {"connection_limit_reached", "draining"}),
            (
                "enclave",
                {"relay_unavailable", "connection_limit_reached", "tls_certificate_error"},
                {"connection_limit_reached", "draining", "peer_denied"},
            ),
            ("relay", {"connection_limit_reached"}, {"connection_limit_reached", "draining", "peer_denied"}),
            ("logs", {"connection_limit_reached"}, {"connection_limit_reached", "draining", "peer_denied"}),
        ):
            counts = HopMetrics(f"nitroproxy-{hop}")
            samples = [sample for family in counts.collect() for sample in family.samples]
            told = {one.labels["error"]: one for one in samples if one.name == "nitroproxy_errors_total"}
            self.assertEqual({name for name, one in told.items() if one.value == 0}, errors)
            self.assertEqual({one.labels["found_by"] for one in told.values()}, {f"nitroproxy-{hop}"})
            refused = {one.labels["reason"] for one in samples if one.name == "nitroproxy_connections_refused_total"}
            self.assertEqual(refused, reasons)
            record = Record(0.0, b"an-id", b"GET")
            record.failed(ProxyError(Kind.CONNECTION_LIMIT_REACHED, "no"), counts.hop)
            counts.ended(record, 1.0)
            self.assertEqual(value(list(counts.collect()), "errors_total", error="connection_limit_reached"), 1)

    def test_open_tunnel(self) -> None:
        """What passes through a tunnel counts while it passes, and once."""
        destination = WaitingEndpoint()

        def route(request: Request) -> Route:
            return Dial(lambda identity: destination)

        hop = self.hop(route)
        client = hop.client()
        client.receive(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nhello")
        upstream = destination.accept()
        upstream.receive(b"hi")
        for _ in range(2):
            self.assertEqual(self.value("bytes_total", direction="received", kind="tunnel"), 5)
            self.assertEqual(self.value("bytes_total", direction="sent", kind="tunnel"), 2)
            upstream.lose()
            hop.pass_time(0.1)
            client.settle()
        self.assertEqual(self.value("tunnel_duration_seconds_count"), 1)
        self.assertEqual(self.value("request_duration_seconds_count"), 0)


class OtherTests(SynchronousTestCase):
    """Connections between hops, handshakes, pools, the reactor, and all of it together."""

    def test_connects(self) -> None:
        """Attempts to connect, failures by errno."""
        counts = ConnectMetrics("relay")
        counts.tried(None)
        counts.tried(Failure(ConnectError(errno.ECONNRESET, "reset")))
        counts.tried(Failure(ValueError()))
        families = list(counts.collect())
        self.assertEqual(value(families, "hop_connects_total", peer="relay"), 1)
        self.assertEqual(value(families, "hop_connect_failures_total", errno="ECONNRESET"), 1)
        self.assertEqual(value(families, "hop_connect_failures_total", errno="other"), 1)

    def test_handshakes(self) -> None:
        """Handshakes by outcome, resumed or not."""
        counts = TLSMetrics()
        counts.shook_hands(None, True)
        counts.shook_hands(Kind.TLS_CERTIFICATE_ERROR, False)
        families = list(counts.collect())
        self.assertEqual(value(families, "tls_handshakes_total", result="ok", resumed="true"), 1)
        self.assertEqual(value(families, "tls_handshakes_total", result="tls_certificate_error", resumed="false"), 1)

    def test_pool(self) -> None:
        """Connections in use and at rest."""
        hop = OneHop()
        collect = pool_metrics("next", lambda: hop.pool)
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        self.assertEqual(value(list(collect()), "pool_connections", pool="next", state="in_use"), 1)
        upstream.receive(OK)
        self.assertEqual(value(list(collect()), "pool_connections", pool="next", state="idle"), 1)

    def test_lag(self) -> None:
        """A reactor that is late is seen to be; each look is a beat."""
        clock, beats = Clock(), []
        lag = ReactorLag(clock)
        lag.start(lambda: beats.append(clock.seconds()))
        clock.advance(1.0)
        clock.advance(1.3)
        lag.stop()
        self.assertEqual((beats, clock.getDelayedCalls()), ([1.0, 2.3], []))
        families = list(lag.collect())
        self.assertEqual(value(families, "reactor_lag_seconds_bucket", le="0.25"), 1)
        self.assertEqual(value(families, "reactor_lag_seconds_bucket", le="0.5"), 2)

    def test_role(self) -> None:
        """Every sample of a daemon carries its role; families of one name are one family."""
        metrics = Metrics("host", "1.2.3")
        metrics.sources += [HopMetrics("a").collect, HopMetrics("b").collect]
        families = metrics.collect()
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(value(families, "build_info", version="1.2.3"), 1)
        self.assertTrue(all(sample.labels["role"] == "host" for family in families for sample in family.samples))
        self.assertIn("process_resident_memory_bytes", names)

    def test_merge(self) -> None:
        """Families of one name are one family; one of another type is left out."""
        counter, same, gauge = Metric("x", "one", "counter"), Metric("x", "two", "counter"), Metric("x", "3", "gauge")
        counter.add_sample("x_total", {"a": "1"}, 1)
        same.add_sample("x_total", {"a": "2"}, 2)
        gauge.add_sample("x", {}, 3)
        [family] = merge([counter, same, gauge])
        self.assertEqual([(one.name, one.value) for one in family.samples], [("x_total", 1), ("x_total", 2)])
        self.assertEqual(len(counter.samples), 1, "what was merged is as it was")

    def test_labelled(self) -> None:
        """Labels are put on every sample, and do not replace those that it has."""
        family = Metric("x", "one", "counter")
        family.add_sample("x_total", {"worker": "1"}, 1)
        family.add_sample("x_total", {}, 2)
        labels = [sample.labels for sample in labelled(family, {"role": "host", "worker": "2"}).samples]
        self.assertEqual(labels, [{"role": "host", "worker": "1"}, {"role": "host", "worker": "2"}])

    def test_worker(self) -> None:
        """One of several processes says on every sample which it is."""
        families = Metrics("enclave", "1", 3).collect()
        labels = [sample.labels for family in families for sample in family.samples]
        self.assertTrue(labels)
        self.assertTrue(all(one["worker"] == "3" and one["role"] == "enclave" for one in labels))

    def test_label_names(self) -> None:
        """The names of all labels are in one set, which the reader of the enclave's metrics goes by (S19)."""
        connects, handshakes = ConnectMetrics("relay"), TLSMetrics()
        connects.tried(None)
        connects.tried(Failure(ConnectError()))
        handshakes.shook_hands(None, False)
        hop = HopMetrics("nitroproxy-enclave")
        record = Record(0.0, b"an-id", b"GET")
        record.failed(ProxyError(Kind.DNS_ERROR, "no"), "nitroproxy-relay")
        hop.ended(record, 0.3)
        metrics = Metrics("enclave", "1", 3)
        metrics.sources += [hop.collect, connects.collect, handshakes.collect, ReactorLag(Clock()).collect]
        metrics.sources.append(pool_metrics("destinations", lambda: OneHop().pool))
        used = {label for family in metrics.collect() for sample in family.samples for label in sample.labels}
        self.assertEqual(used - {"le"} - LABELS, set())
        self.assertEqual(LABELS - used, {"outcome", "layer", "status", "use"}, "which other sources have")
