"""How long a response may take, and its reader: `nitroproxy.proxy.progress`, through the engine."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Request
from nitroproxy.policy import ByPattern
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.route import Route
from nitroproxy.proxy.settings import ExchangeSettings
from tests.wire import GET, Notes, OneHop, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SHORT = ExchangeSettings(idle_timeout=20.0, response_timeout=ByPattern({}, 20.0), min_body_rate=240)


class _ToDestinations(OneHop):
    """Forwards like `OneHop`, and notes the request's target as the destination's name."""

    def route(self, request: Request, record: Record) -> Route:
        """See `OneHop.route`."""
        record.host, record.port = request.target.decode().strip("/"), 443
        return super().route(request, record)


class ResponseTests(SynchronousTestCase):
    """How long a response may take."""

    def test_by_destination(self) -> None:
        """response_timeout is that of the most specific pattern for the destination."""
        by_pattern = ByPattern({"*": 30.0, "api.example:443": 90.0}, 300.0)
        hop = _ToDestinations(exchange=ExchangeSettings(response_timeout=by_pattern))
        api, other = hop.client(), hop.client()
        api.receive(b"GET /api.example HTTP/1.1\r\nHost: a\r\n\r\n")
        other.receive(b"GET /other.example HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(2):
            hop.endpoint.accept()
        hop.pass_time(30.1)
        self.assertEqual((api.take(), other.take()[9:12]), (b"", b"504"))
        hop.pass_time(59.8)
        self.assertEqual(api.take(), b"")
        hop.pass_time(0.3)
        self.assertIn(b"no response within 90 seconds (limits.response_timeout)", api.take())

    def test_longer_than_idle_timeout(self) -> None:
        """Waiting for a response is not idleness, neither before a 1xx nor after it."""
        hop = OneHop(exchange=ExchangeSettings(idle_timeout=2.0))
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        hop.pass_time(100)
        upstream.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.take()
        hop.pass_time(100)
        upstream.receive(OK)
        self.assertEqual(client.take()[9:12], b"200")

    def test_interim_response_is_no_response(self) -> None:
        """A next hop that says 103 and 103 again does not put off the time by which it must have answered."""
        hop = OneHop(exchange=SHORT)
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        for _ in range(3):
            hop.pass_time(6)
            upstream.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.take()
        hop.pass_time(2.1)
        self.assertEqual(client.take()[9:12], b"504")

    def test_head_without_a_body(self) -> None:
        """A response whose head came and whose body does not is given up after idle_timeout."""
        hop = OneHop(exchange=SHORT)
        client = hop.client()
        client.receive(GET)
        hop.endpoint.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        hop.pass_time(19)
        self.assertFalse(client.aborted)
        hop.pass_time(2)
        self.assertTrue(client.aborted)

    def stream(self, content_type: bytes) -> tuple[OneHop, Wire, Wire]:
        hop = OneHop(exchange=ExchangeSettings(idle_timeout=20.0, tunnel_timeout=100.0))
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: " + content_type + b"\r\n\r\n"
        upstream.receive(head + b"9\r\ndata: 1\n\n\r\n")
        return hop, client, upstream

    def test_silent_event_stream(self) -> None:
        """An event stream may be silent for tunnel_timeout, any other response for idle_timeout."""
        for content_type, stays in (
            (b"text/event-stream", True),
            (b"Text/Event-Stream ; charset=utf-8", True),
            (b"text/plain", False),
            (b"text/event-streams", False),
        ):
            hop, client, upstream = self.stream(content_type)
            hop.pass_time(99)
            client.settle()
            self.assertIs(client.aborted, not stays, content_type)
            if stays:
                upstream.receive(b"9\r\ndata: 2\n\n\r\n")
                self.assertIn(b"data: 2", client.take())
                hop.pass_time(99)
                self.assertFalse(client.aborted)
                hop.pass_time(1.2)
                self.assertTrue(client.aborted)

    def test_event_stream_without_a_reader(self) -> None:
        """A client that stops reading its event stream has idle_timeout, not tunnel_timeout."""
        self.check_reader_that_stops(b"text/event-stream")

    def test_reader_resumes(self) -> None:
        """A client that reads again after a long pause leaves the next hop all of idle_timeout to go on."""
        hop, client, _ = self.stream(b"text/plain")
        assert client.producer is not None
        client.producer.pauseProducing()
        hop.pass_time(19)
        client.producer.resumeProducing()
        hop.pass_time(19)
        self.assertFalse(client.aborted)
        hop.pass_time(2)
        self.assertTrue(client.aborted)

    def test_reader_that_stops(self) -> None:
        """A client that stops reading is client_gone: its response has not failed."""
        self.check_reader_that_stops(b"text/plain")

    def check_reader_that_stops(self, content_type: bytes) -> None:
        hop, client, upstream = self.stream(content_type)
        notes = hop.factory.observer = Notes()
        assert client.producer is not None
        client.producer.pauseProducing()
        hop.pass_time(20.1)
        self.assertTrue(client.aborted)
        client.settle()
        [record] = notes.records
        self.assertEqual((record.error, record.client_gone, record.ended_by), (None, True, End.CLIENT_STOPPED_READING))
        self.assertTrue(upstream.aborted)
