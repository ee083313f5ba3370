"""Local pages, served from a twisted.web tree by the engine."""

from __future__ import annotations

import json
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as WebRequest
from zope.interface import implementer

from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.health import Check, Health, HealthResource, LocalRoot, read_health
from tests.wire import GET, OneHop, split_head


@implementer(IPushProducer)
class _Produced(Resource):
    """A page that is its own producer."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def render_GET(self, request: WebRequest) -> int:
        """Begin, and stay."""
        self.request = request
        request.registerProducer(self, True)
        request.write(b"page")
        return NOT_DONE_YET

    def end(self) -> None:
        """The page is complete."""
        self.request.unregisterProducer()
        self.request.finish()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """See `IPushProducer`."""


class LocalTests(SynchronousTestCase):
    """A daemon's own pages."""

    def setUp(self) -> None:
        self.health = Health("nitroproxy-test", "1", {"host": Check("pass")})
        self.answer: Deferred[None] | None = None
        root = LocalRoot("nitroproxy-test")
        root.putChild(b"health", HealthResource("nitroproxy-test", self.examine))
        self.site = Site(root)
        self.hop = OneHop(self.route)
        self.client = self.hop.client()

    examined = 0

    async def examine(self) -> Health:
        self.examined += 1
        if self.answer is not None:
            await self.answer
        return self.health

    def route(self, request: Request) -> Route:
        return Local(self.site)

    def test_query(self) -> None:
        """A page is given the query only where it has one, and together with the path that is bounded."""
        asked: list[tuple[bytes, object]] = []

        class Asked(LocalRoot):
            def getChild(self, path: bytes, request: WebRequest) -> Resource:
                asked.append((request.uri, dict(request.args)))
                return super().getChild(path, request)

        site = Site(Asked("nitroproxy-test"))
        for query, uri, args in ((False, b"/a", {}), (True, b"/a?b=c", {b"b": [b"c"]})):
            route = Local(site, query=query)
            client = OneHop(partial(lambda route, request: route, route)).client()
            client.receive(b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(asked.pop(), (uri, args))
            client.receive(b"GET /a?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 300))
            self.assertEqual(len(asked), 0 if query else 1)
            asked.clear()

    def ask(self, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        self.client.receive(request)
        return split_head(self.client.take())

    def test_health(self) -> None:
        """Health is 200 with a document of its checks, and the connection goes on."""
        request = GET.replace(b"/thing", b"/health")
        for _ in range(2):
            start, headers, body = self.ask(request)
            self.assertEqual(start, b"HTTP/1.1 200 OK")
            self.assertEqual(headers[b"content-type"], b"application/health+json")
            self.assertEqual(read_health(body, ("host",)), {"host": Check("pass")})

    def test_failing(self) -> None:
        """A layer that fails makes it 503 and says why; a warning does not."""
        self.health.checks["dns"] = Check("warn", "slow")
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health"))[0], b"HTTP/1.1 200 OK")
        self.health.checks["enclave"] = Check("fail", "gone")
        start, _, body = self.ask(GET.replace(b"/thing", b"/health"))
        self.assertEqual(start, b"HTTP/1.1 503 Service Unavailable")
        document = json.loads(body)
        self.assertEqual(document["status"], "fail")
        self.assertEqual(document["checks"]["enclave"], [{"status": "fail", "output": "gone"}])

    def test_head(self) -> None:
        """HEAD has no body."""
        _, _, body = self.ask(GET.replace(b"/thing", b"/health").replace(b"GET", b"HEAD"))
        self.assertEqual(body, b"")

    def test_not_found(self) -> None:
        """Any other page is a problem document that says how to name a URL."""
        start, headers, body = self.ask(GET)
        self.assertEqual(start, b"HTTP/1.1 404 Not Found")
        self.assertEqual(headers[b"content-type"], b"application/problem+json")
        self.assertIn(b"/https://host/path", body)

    def test_body_is_dropped(self) -> None:
        """A request body is read and dropped; the next request is read after it."""
        start, _, _ = self.ask(b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        self.assertEqual(start, b"HTTP/1.1 405 Method Not Allowed")
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health"))[0], b"HTTP/1.1 200 OK")

    def test_forms_are_not_parsed(self) -> None:
        """A form, sound or broken, is a body like any other: it is answered, and the connection goes on."""
        for content_type, body in (
            (b"multipart/form-data", b"x"),
            (b"multipart/form-data; boundary=b", b"--b\r\nbroken"),
            (b"application/x-www-form-urlencoded", b"a=%"),
        ):
            head = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
            self.assertEqual(self.ask(head % (content_type, len(body)) + body)[0], b"HTTP/1.1 405 Method Not Allowed")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health"))[0], b"HTTP/1.1 200 OK")

    def test_page_from_a_producer(self) -> None:
        """A page may come from a push producer, which then goes at the client's pace."""
        page = _Produced()
        self.site.resource.putChild(b"produced", page)
        self.client.receive(GET.replace(b"/thing", b"/produced"))
        assert self.client.producer is not None
        self.client.producer.pauseProducing()
        self.client.producer.resumeProducing()
        self.assertEqual(page.told, ["pause", "resume"])
        page.end()
        self.client.producer.pauseProducing()
        self.assertEqual(page.told, ["pause", "resume"])
        self.assertTrue(self.client.take().endswith(b"\r\n\r\n4\r\npage\r\n0\r\n\r\n"))

    def test_client_gone(self) -> None:
        """A client that goes before the answer is no error."""
        self.answer = Deferred()
        self.client.receive(GET.replace(b"/thing", b"/health"))
        self.client.lose()
        self.answer.callback(None)
        self.assertEqual(self.client.take(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_pipelined(self) -> None:
        """Local pages wait their turn like everything else."""
        self.answer = Deferred()
        request = GET.replace(b"/thing", b"/health")
        self.client.receive(request + request)
        self.answer.callback(None)
        self.assertEqual(self.client.take().count(b"200 OK"), 2)

    def test_body_that_never_comes(self) -> None:
        """A request body for a page has a time limit, and the client may ask for leave to send it."""
        head = b"POST /health HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        self.client.receive(head)
        self.assertEqual(self.client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.hop.pass_time(60.1)
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 408 "))

    def test_query_and_path_are_not_kept(self) -> None:
        """What twisted.web makes of a target, and keeps while a page is made, stays small: no query, no long path
        (K4)."""
        page = _Produced()
        self.site.resource.putChild(b"produced", page)
        query = b"&".join(b"%d=" % number for number in range(2000))
        self.client.receive(GET.replace(b"/thing", b"/produced/x?" + query))
        self.assertEqual((page.request.args, page.request.uri), ({}, b"/produced/x"))
        client = self.hop.client()
        for path in (b"/health/" + b"a/" * 125, b"/produced" + b"/ab" * 5000):
            client.receive(GET.replace(b"/thing", path))
            self.assertTrue(client.take().startswith(b"HTTP/1.1 404 "))
        client.receive(GET.replace(b"/thing", b"/health?" + query))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 200 "))

    def test_large_body(self) -> None:
        """A body larger than a page takes is refused, whether it says its length or not."""
        for head in (b"Content-Length: 65537\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10001\r\n" + b"x" * 65537):
            client = self.hop.client()
            client.receive(b"POST /health HTTP/1.1\r\nHost: a\r\n" + head)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
            self.assertTrue(client.half_closed)

    def test_below_health(self) -> None:
        """Nothing is below a page that has nothing below it."""
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health/nonsense"))[0], b"HTTP/1.1 404 Not Found")
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health/"))[0], b"HTTP/1.1 200 OK")

    def test_method(self) -> None:
        """A method that a page does not have is a problem document, and says which it has."""
        for method in (b"POST", b"PUT", b"PURGE"):
            client = self.hop.client()
            client.receive(GET.replace(b"/thing", b"/health").replace(b"GET", method))
            start, headers, body = split_head(client.take())
            self.assertEqual(headers[b"content-type"], b"application/problem+json")
            self.assertNotIn(b"server", headers)
            self.assertEqual(start, b"HTTP/1.1 405 Method Not Allowed")
            self.assertEqual(headers[b"allow"], b"GET, HEAD")
            self.assertEqual(json.loads(body)["error"], "method_not_allowed")

    def test_asked_by_many(self) -> None:
        """Requests at the same time share one examination."""
        self.answer = Deferred()
        clients = [self.hop.client() for _ in range(50)]
        for client in clients:
            client.receive(GET.replace(b"/thing", b"/health"))
        self.answer.callback(None)
        self.assertEqual([client.take().count(b"200 OK") for client in clients], [1] * 50)
        self.assertEqual(self.examined, 1)
        self.assertEqual(self.ask(GET.replace(b"/thing", b"/health"))[0], b"HTTP/1.1 200 OK")
        self.assertEqual(self.examined, 2)
