"""How a response flows through an exchange: at the reader's pace, and never completed by us."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.route import Forward
from tests.wire import GET, OneHop, Wire, split_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class BackpressureTests(SynchronousTestCase):
    """Neither side is read faster than the other is written."""

    def test_slow_upstream_stops_the_client(self) -> None:
        """While the upstream transport is full the client is not read."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        self.assertTrue(client.paused, "nothing is read while there is nowhere to put it")
        upstream = hop.endpoint.accept()
        self.assertFalse(client.paused)
        assert upstream.producer is not None
        upstream.producer.pauseProducing()
        self.assertTrue(client.paused)
        upstream.producer.resumeProducing()
        self.assertFalse(client.paused)

    def test_slow_client_stops_the_upstream(self) -> None:
        """While the client's transport is full the upstream is not read; afterwards the connection is as new."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        assert client.producer is not None
        client.producer.pauseProducing()
        self.assertTrue(upstream.paused)
        upstream.receive(b"67890")
        self.assertFalse(upstream.paused)
        client.take()
        client.receive(GET)
        self.assertEqual(
            upstream.take().count(b"GET"), 1, "the next request waits until the client has read its answer"
        )
        client.producer.resumeProducing()
        self.assertEqual(upstream.take().count(b"GET"), 1)

    def test_answers_that_are_not_read(self) -> None:
        """A client that asks and asks and does not read is not read either: nothing piles up for it."""
        hop = OneHop()
        client = hop.client()
        assert client.producer is not None
        client.producer.pauseProducing()
        for _ in range(100):
            client.receive(GET)
        self.assertTrue(client.paused)
        self.assertEqual(len(hop.endpoint.waiting), 0)
        client.producer.resumeProducing()
        hop.endpoint.accept().receive(OK)
        self.assertEqual(client.take().count(b"200 OK"), 1)

    def test_response_to_a_full_client(self) -> None:
        """A response that begins while the client is still full waits at once."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        assert client.producer is not None
        client.producer.pauseProducing()
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        self.assertTrue(upstream.paused)

    def test_pipelining_is_bounded(self) -> None:
        """A client that pipelines is not read until its request has been answered."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET + GET)
        self.assertTrue(client.paused)
        upstream = hop.endpoint.accept()
        upstream.receive(OK)
        upstream.receive(OK)
        self.assertFalse(client.paused)


class TruncationTests(SynchronousTestCase):
    """What breaks off upstream breaks off downstream (S10, S16)."""

    def truncated(self, head: bytes, reason: Exception | None = None) -> Wire:
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nabc")
        upstream.lose(reason)
        self.assertFalse(client.aborted, "what has been written leaves first")
        hop.pass_time(0.1)
        client.settle()
        return client

    def test_length(self) -> None:
        """A body shorter than its length aborts the client's connection, however cleanly the upstream ended."""
        client = self.truncated(b"Content-Length: 10\r\n", ConnectionDone())
        self.assertTrue(client.aborted)

    def test_chunked(self) -> None:
        """No last chunk is invented."""
        client = self.truncated(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        self.assertTrue(client.aborted)
        self.assertNotIn(b"\r\n0\r\n", client.take())

    def test_until_close_unclean(self) -> None:
        """A body until the connection's end is not complete when the connection was lost."""
        client = self.truncated(b"")
        self.assertTrue(client.aborted)
        self.assertNotIn(b"\r\n0\r\n", client.take())

    def test_until_close_clean(self) -> None:
        """It is complete when the peer ended it on purpose."""
        client = self.truncated(b"", ConnectionDone())
        self.assertFalse(client.aborted)
        self.assertTrue(client.take().endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))

    def test_until_close_where_an_end_proves_nothing(self) -> None:
        """Over vsock a response without a length is refused: its end could be a reset."""
        hop = OneHop(end_is_proof=False)
        client = hop.client()
        client.receive(GET)
        hop.endpoint.accept().receive(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.assertIn(b'"error": "http_protocol_error"', client.take())


class FramingTests(SynchronousTestCase):
    """What is said of a message is what was understood of it."""

    def test_interim_fields(self) -> None:
        """A 1xx goes on without fields that would frame a body, without hop-by-hop ones and without our own."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\nKeep-Alive: x\r\n"
            b"Nitroproxy-Request-Id: z\r\n\r\n"
        )
        self.assertEqual(client.take(), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        upstream.receive(OK)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 200 OK"))

    def test_lengths_are_written_anew(self) -> None:
        """A length with leading zeros goes on without them, both ways."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi")
        upstream = hop.endpoint.accept()
        self.assertIn(b"Content-Length: 2\r\n", upstream.take())
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok")
        self.assertIn(b"Content-Length: 2\r\n", client.take())

    def test_date(self) -> None:
        """A response without a date is given one; one that has it keeps it (RFC 9110 section 6.6.1)."""
        for given in (b"", b"Date: Tue, 24 Nov 2026 00:00:00 GMT\r\n"):
            hop = OneHop()
            client = hop.client()
            client.receive(GET)
            hop.endpoint.accept().receive(b"HTTP/1.1 204 No Content\r\n" + given + b"\r\n")
            response = client.take()
            self.assertEqual(response.count(b"\r\nDate: "), 1)
            self.assertIn(given, response)

    def test_max_forwards(self) -> None:
        """OPTIONS counts its hops down, and is answered by the one where it ends (RFC 9110 section 7.6.2)."""
        hop = OneHop()
        client = hop.client()
        asked = b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: %d\r\n\r\n"
        client.receive(asked % 0)
        start, headers, _ = split_head(client.take())
        self.assertEqual(start, b"HTTP/1.1 204 No Content")
        self.assertIn(b"OPTIONS", headers[b"allow"])
        client.receive(asked % 5)
        self.assertIn(b"Max-Forwards: 4\r\n", hop.endpoint.accept().take())
        for given, passed_on in ((b"0" * 5000 + b"9", b"8"), (b"9" * 5000, b"999999"), (b"-1", b"-1"), (b"00", b"0")):
            client = hop.client()
            client.receive(asked.replace(b"%d", given))
            self.assertIn(b"Max-Forwards: %b\r\n" % passed_on, hop.endpoint.accept().take())

    def test_defect(self) -> None:
        """An exception of ours before the request has left is logged and answered, and leaves nothing behind."""
        hop = OneHop(lambda request: Forward(hop.pool, "next", request.target, b"a\nb"))
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIn(b"500 Internal Server Error", client.take())
        upstream.settle()
        self.assertTrue(upstream.aborted)
        self.assertEqual(hop.pool.open, 0)

    def test_no_switch_to_http2(self) -> None:
        """An offer to switch to HTTP/2 stays here: what follows could not be seen through."""
        hop = OneHop()
        client = hop.client()
        offer = b"Connection: upgrade, http2-settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n" + offer % b"h2c")
        upstream = hop.endpoint.accept()
        sent = upstream.take().lower()
        self.assertNotIn(b"upgrade", sent)
        self.assertNotIn(b"settings", sent)
        upstream.receive(OK)
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n" + offer % b"H2C, websocket")
        self.assertIn(b"Upgrade: websocket\r\n", upstream.take())
