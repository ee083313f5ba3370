"""A client's connection: limits, deadlines, refusals. No sockets, no real time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Limits
from nitroproxy.proxy.settings import ExchangeSettings
from tests.wire import GET, OneHop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class DeadlineTests(SynchronousTestCase):
    """A client's time limits."""

    def test_slow_head(self) -> None:
        """A head that drips is 408 at the deadline, however steadily it drips (F5)."""
        hop = OneHop()
        client = hop.client()
        for byte in GET[:20]:
            client.receive(bytes([byte]))
            hop.pass_time(0.5)
        hop.pass_time(0.2)
        self.assertIn(b"408 Request Timeout", client.take())
        self.assertTrue(client.half_closed)

    def test_idle_connection(self) -> None:
        """A connection without a request is closed without a response."""
        hop = OneHop()
        client = hop.client()
        hop.pass_time(60.1)
        self.assertEqual(client.take(), b"")
        self.assertTrue(client.disconnecting)

    def test_stalled_body(self) -> None:
        """A body that stops arriving is given up."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        upstream = hop.endpoint.accept()
        hop.pass_time(60.2)
        self.assertIn(b"request_timeout", client.take())
        self.assertTrue(upstream.aborted)

    def test_dripping_body(self) -> None:
        """A body that drips is 408 once its average is too low, however steadily it drips (F5)."""
        hop = OneHop(exchange=ExchangeSettings(min_body_rate=240))
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        upstream = hop.endpoint.accept()
        for _ in range(10):
            client.receive(b"x" * 1200)
            hop.pass_time(4.0)
        self.assertEqual(client.take(), b"")
        for _ in range(70):
            client.receive(b"x")
            hop.pass_time(1.0)
        self.assertEqual(client.take(), b"", "12,070 bytes are enough for 50 seconds, and pauses may take 60 more")
        hop.pass_time(1.0)
        self.assertIn(b"request_timeout", client.take())
        self.assertTrue(upstream.aborted)

    def test_body_held_back(self) -> None:
        """A client that is held back by a slow upstream gets no timeout."""
        hop = OneHop(exchange=ExchangeSettings(min_body_rate=240))
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        upstream = hop.endpoint.accept()
        assert upstream.producer is not None
        for _ in range(10):
            upstream.producer.pauseProducing()
            hop.pass_time(2.0)
            upstream.producer.resumeProducing()
            client.receive(b"x")
            hop.pass_time(2.0)
        self.assertEqual(client.take(), b"")
        self.assertFalse(upstream.aborted)

    def test_lingering_is_bounded(self) -> None:
        """A client that continues to send after its last response is cut off."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"GET / HTTP/9\r\n\r\n")
        self.assertIn(b"400 Bad Request", client.take())
        client.receive(b"x" * 1000)
        hop.pass_time(2.1)
        self.assertTrue(client.aborted)


class RefusalTests(SynchronousTestCase):
    """Requests that are refused before they are routed."""

    def test_nothing_after_an_error_is_parsed(self) -> None:
        """Bytes after a malformed request on the connection never become a request (S8)."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + GET)
        client.receive(GET)
        self.assertEqual(client.take().count(b"HTTP/1.1 "), 1)
        self.assertEqual(hop.endpoint.waiting, [])

    def test_malformed_chunk_sends_nothing_on(self) -> None:
        """A request whose body breaks the coding is answered 400, and the upstream sees no end of the body."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        upstream = hop.endpoint.accept()
        client.receive(b"0x5\r\nhello\r\n0\r\n\r\n")
        self.assertIn(b"malformed_request", client.take())
        self.assertTrue(upstream.aborted)
        self.assertNotIn(b"0\r\n\r\n", upstream.take().partition(b"\r\n\r\n")[2])

    def test_long_target(self) -> None:
        """A target over the limit gets 414 as soon as its length is known, with a complete response (S7)."""
        hop = OneHop(limits=Limits(target_bytes=100))
        client = hop.client()
        client.receive(b"GET /" + b"x" * 200)
        self.assertIn(b"414 ", client.take())

    def test_many_headers(self) -> None:
        """Headers over the limits get 431 (S7)."""
        hop = OneHop(limits=Limits(header_bytes=2000))
        client = hop.client()
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000)
        self.assertIn(b"431 ", client.take())
        client = hop.client()
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n")
        self.assertIn(b"431 ", client.take())

    def test_half_closed_client_gets_its_answer(self) -> None:
        """A client that half-closes after its request still gets the response."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        client.end()
        hop.endpoint.accept().receive(OK)
        client.settle()
        self.assertTrue(client.take().endswith(b"ok"))
        self.assertTrue(client.closed)
        self.assertFalse(client.aborted)

    def test_request_cut_short(self) -> None:
        """A request body that the client cuts short is never passed on as complete."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        upstream = hop.endpoint.accept()
        client.end()
        self.assertTrue(upstream.aborted)
        self.assertTrue(upstream.take().endswith(b"\r\n\r\n3\r\nabc\r\n"))

    def test_cut_short_after_an_answer(self) -> None:
        """The answer to the previous request is still sent when the next request is cut short."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        hop.endpoint.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client.end()
        self.assertFalse(client.aborted)
        self.assertTrue(client.disconnecting)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 200 OK"))
