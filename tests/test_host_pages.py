"""The gateway's own pages: what is served where, and what they make of an enclave that answers too much."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site
from zope.interface import implementer

from nitroproxy.enclave.router import enclave_root
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.egress import relay_site
from nitroproxy.host.enclave_end import FORGET, WORDS
from nitroproxy.host.log_intake import LogIntake, LogRouter
from nitroproxy.host.pages import HealthOfHost, MetricsOfBoth, gateway_site, health_site
from nitroproxy.http1.messages import Request
from nitroproxy.policy import Policy
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.health import Check, Health
from nitroproxy.telemetry.metrics import Metrics
from tests.roles import ask_nothing
from tests.statuses import ask_status
from tests.wire import OneHop, record, split_head

FOUR_MEGABYTES = b'nitroproxy_requests_total{hop="x"} 1\n' * (4_000_000 // 37)


class PagesTests(SynchronousTestCase):
    """Without an enclave: health and metrics are not asked for here."""

    def setUp(self) -> None:
        nobody: Any = None
        self.site = gateway_site(
            HealthOfHost(nobody, nobody, "", ask_nothing, verifies=True), nobody, "1<2", ask_nothing
        )

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

        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", ask_nothing, verifies=True, workers=workers)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.answer(b'{"checks": {"enclave": [{"status": "pass"}], "workers": [{"status": "fail"}]}}')
        health = self.successResultOf(examining)
        self.assertEqual((health.checks["workers"].status, health.checks["enclave_workers"].status), ("warn", "fail"))

    def examine(self, body: bytes, *, verifies: bool = True) -> Health:
        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", ask_nothing, verifies=verifies)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.answer(body)
        return self.successResultOf(examining)

    def test_hostile_health(self) -> None:
        """An enclave says how its own layers are and what is beyond; it does not overrule what the host examines itself
        (K7)."""
        forged = {layer: [{"status": "fail", "output": "forged"}] for layer in ("host", "vsock", "workers", "x")}
        checks = {"enclave": [{"status": "pass"}], "egress": [{"status": "warn"}], **forged}
        health = self.examine(json.dumps({"checks": checks}).encode())
        self.assertEqual([health.checks[layer].status for layer in ("host", "vsock")], ["pass", "pass"])
        self.assertEqual(health.checks["egress"].status, "warn")
        self.assertNotIn("workers", health.checks)
        self.assertNotIn("x", health.checks)

    def test_verification(self) -> None:
        """The enclave verifies, so its word counts; but where the host's own configuration has verification off, an
        enclave that says "on" does not hide it, and without its word the check is missing: unknown (K7)."""
        on = b'{"checks": {"enclave": [{"status": "pass"}], "tls_verification": [{"status": "pass", "output": "on"}]}}'
        self.assertEqual(self.examine(on).checks["tls_verification"], Check("pass", "on"))
        self.assertEqual(
            self.examine(on.replace(b'"pass", "o', b'"warn", "o')).checks["tls_verification"].status, "warn"
        )
        self.assertEqual(self.examine(on, verifies=False).checks["tls_verification"].status, "warn")
        for body in (b"nonsense", b'{"checks": {"enclave": [{"status": "pass"}]}}'):
            self.assertNotIn("tls_verification", self.examine(body).checks)

    def test_no_word_of_itself(self) -> None:
        """A document that does not say how the enclave is, is none: the enclave fails."""
        for body in (b'{"checks": {}}', b'{"checks": {"egress": [{"status": "pass"}]}}'):
            self.assertEqual(self.examine(body).checks["enclave"].status, "fail")

    def test_unknown_verification(self) -> None:
        """Only the enclave says that it verifies certificates; that this host's configuration does not is a warning."""
        for verifies, expected in ((True, None), (False, "warn")):
            examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", ask_nothing, verifies=verifies)
            examining: Deferred[Health] = Deferred.fromCoroutine(examine())
            self.answer(b"no document")
            health = self.successResultOf(examining)
            self.assertEqual(health.checks["enclave"].status, "fail")
            found = health.checks.get("tls_verification")
            self.assertEqual(found and found.status, expected)

    def test_health_too_long(self) -> None:
        """A health document has a limit too: the enclave fails."""
        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", ask_nothing, verifies=True)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.assertFalse(self.answer(b" " * 100_000))
        self.assertEqual(self.successResultOf(examining).checks["enclave"].status, "fail")

    def test_enclave_end(self) -> None:
        """While the enclave does not answer the check says with which words it ended; once it answers they are
        forgotten, and nothing is when there are none."""
        asked: list[tuple[str, Any]] = []
        ended = "at noon the enclave said: \\x1b[2J"
        answers: dict[str, str | None] = {WORDS: ended}

        def ask(what: str, about: Any, timeout: float = 0.7) -> Deferred[Any]:
            asked.append((what, about))
            return succeed(answers.get(what))

        examine = HealthOfHost(self.hop.pool, self.hop.deadlines, "1", ask, verifies=True)
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        self.hop.endpoint.refuse(ProxyError(Kind.ENCLAVE_UNAVAILABLE, "nothing listens"))
        check = self.successResultOf(examining).checks["enclave"]
        self.assertEqual(check.status, "fail")
        self.assertTrue(check.output.startswith("the enclave does not answer: "), check.output)
        self.assertTrue(check.output.endswith(f"; {ended}"), check.output)
        self.assertEqual(asked, [(WORDS, None)])
        for words, expected in (
            (ended, [(WORDS, None), (FORGET, ended)]),
            ("", [(WORDS, None)]),
            (None, [(WORDS, None)]),
        ):
            asked.clear()
            answers[WORDS] = words
            examining = Deferred.fromCoroutine(examine())
            self.answer(b'{"checks": {"enclave": [{"status": "pass"}]}}')
            self.assertEqual(self.successResultOf(examining).checks["enclave"], Check("pass"))
            self.assertEqual(asked, expected)


#: Header values that are legal, or get past the reader, and that a page might not expect.
ODD_VALUES = [
    b"\xff",
    b"",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"%",
    b"\t",
    b",",
    b";q=;",
    b"*/*;q=\xff",
    b"application/openmetrics-text;version=9.9.9;escaping=\xff",
    b"application/openmetrics-text;version=x",
    b"application/openmetrics-text;version=1." + b"9" * 5000,
    b"application/openmetrics-text;version=1.0.0.0.0;escaping=dots",
    b"application/openmetrics-text;version=\xd9\xa3",
    b"text/plain;version=",
    b"text/plain;version=.",
    b"text/plain;version=1.0.0;escaping=nonsense",
    b'"',
    b"=",
    b"bytes=9-1",
    b"9" * 5000,
    b"-1",
    b"\xef\xbf\xbf" * 1000,
]
#: Every field that a page of ours, twisted.web or prometheus_client reads, and what a browser or proxy sends.
READ_FIELDS = [
    b"Accept",
    b"Accept-Encoding",
    b"Accept-Language",
    b"Authorization",
    b"Content-Type",
    b"Content-Encoding",
    b"Content-Disposition",
    b"Cookie",
    b"Forwarded",
    b"If-Match",
    b"If-Modified-Since",
    b"If-None-Match",
    b"Log-First",
    b"Log-Session",
    b"Max-Forwards",
    b"Nitroproxy-Request-Id",
    b"Origin",
    b"Range",
    b"Referer",
    b"traceparent",
    b"tracestate",
    b"User-Agent",
    b"Via",
    b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Request-Id",
]
#: Every method that llhttp takes in a request of HTTP.
METHODS = (
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND"
    b" ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK"
    b" SOURCE QUERY"
).split()
PATHS = [
    b"/",
    b"/health",
    b"/health/",
    b"/health/live",
    b"/health/ready",
    b"/metrics",
    b"/metrics/x",
    b"/status",
    b"/status?lang=zh&refresh=0",
    b"/status?lang=%ff&refresh=%00&lang",
    b"/status.json",
    b"/status/x",
    b"/logs",
    b"/%ff",
    b"/%00",
    b"/..",
    b"/health/../logs",
    b"/?%ff=%ff&&=;",
    b"/" + b"a/" * 2000,
    b"*",
]


class OddRequestTests(SynchronousTestCase):
    """Requests that no page expects, on every page of every listener (K7)."""

    def setUp(self) -> None:
        async def examine() -> Health:
            return Health("nitroproxy-test", "1", {"host": Check("pass")})

        async def collect() -> Sequence[Metric]:
            return await own_metrics(metrics)

        metrics = Metrics("host", "1")
        hop = OneHop()
        some: Any = None
        health = HealthOfHost(some, some, "", ask_nothing, verifies=True)
        self.patch(HealthOfHost, "__call__", lambda _: examine())
        self.patch(MetricsOfBoth, "__call__", lambda _: collect())
        both = MetricsOfBoth(lambda: own_metrics(metrics), hop.pool, hop.deadlines)
        resolver: Any = type("Resolver", (), {"trouble": None})
        sites = [
            gateway_site(health, both, "1", ask_status),
            health_site(health, both, ask_status),
            Site(enclave_root(examine, collect, list)),
            relay_site(resolver, Policy(["*:*"], []), "1"),
        ]
        router = LogRouter(LogIntake(16, lambda fields: None))
        self.routes: list[Callable[[Request], Route]] = [
            *(partial(lambda site, request: Local(site, query=True), site) for site in sites),
            lambda request: router.route(request, record()),
        ]

    def check(self, route: Callable[[Request], Route], head: bytes) -> bytes:
        """Send *head*, and a sound request after it; the first one's status. Both are answered, nothing is logged."""
        client = OneHop(route).client()
        client.receive(head)
        answer = client.take()
        start, headers, body = split_head(answer)
        status = start.split(b" ")[1]
        self.assertIn(status, (b"200", b"204", b"400", b"403", b"404", b"405"), head)
        self.assertEqual(self.flushLoggedErrors(), [], head)
        if status in (b"403", b"404", b"405") and not head.startswith(b"HEAD"):
            self.assertEqual(headers[b"content-type"], b"application/problem+json", head)
            self.assertEqual(int(headers[b"content-length"]), len(body), head)
        if b"close" not in headers.get(b"connection", b""):
            client.receive(b"GET /no-such-page HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertTrue(client.take().startswith(b"HTTP/1.1 404 "), head)
        return status

    def test_methods(self) -> None:
        """Every method on every page is answered: 405 says which methods the page has, HEAD is there where GET is."""
        for route in self.routes:
            for path in PATHS:
                found = {
                    method: self.check(route, b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, path))
                    for method in METHODS
                    if path != b"*" or method == b"OPTIONS"
                }
                if b"GET" in found:
                    self.assertEqual(found[b"HEAD"], found[b"GET"], path)

    def test_fields(self) -> None:
        """Every value in every field that a page reads is answered, by GET and POST, on every page."""
        paths = [(b"/", b"/health", b"/metrics"), (b"/status",), (b"/health", b"/metrics"), (b"/health",), (b"/logs",)]
        for route, pages in zip(self.routes, paths, strict=True):
            for path in pages:
                for name in READ_FIELDS:
                    for value in ODD_VALUES:
                        line = b"%b: %b\r\n" % (name, value)
                        self.check(route, b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path, line * 2))
                        if path == b"/logs":
                            post = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n%b\r\nx" % (path, line)
                            self.check(route, post)

    def test_log_fields(self) -> None:
        """A Log-Session that is not ASCII is 400 and changes nothing; HEAD of the log is 405."""
        post = b"POST /logs HTTP/1.1\r\nHost: a\r\nLog-First: 1\r\nLog-Session: %b\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(self.check(self.routes[4], post % b"\xff"), b"400")
        self.assertEqual(self.check(self.routes[4], post % b"s"), b"204")
        self.assertEqual(self.check(self.routes[4], b"HEAD /logs HTTP/1.1\r\nHost: a\r\n\r\n"), b"405")

    def test_page_that_fails(self) -> None:
        """A page that cannot be made is a problem document with status 500, and logged once."""

        async def fail() -> Health:
            raise ZeroDivisionError

        site = Site(enclave_root(fail, fail, list))  # type: ignore[arg-type]
        client = OneHop(lambda request: Local(site)).client()
        for path in (b"/health", b"/metrics"):
            client.receive(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            start, headers, body = split_head(client.take())
            self.assertEqual(start, b"HTTP/1.1 500 Internal Server Error")
            self.assertEqual(json.loads(body)["error"], "internal_error")
            self.assertEqual(json.loads(body)["request_id"].encode(), headers[b"nitroproxy-request-id"])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
