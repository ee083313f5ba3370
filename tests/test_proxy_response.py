"""The responses of one client's connection, as bytes: `nitroproxy.proxy.response`."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import CHUNKED, UNTIL_CLOSE, Fields, Request, Response
from nitroproxy.proxy.response import ResponseWriter
from tests.wire import split_head

DATE = (b"Date", b"Tue, 24 Nov 2026 00:00:00 GMT")


class ResponseWriterTests(SynchronousTestCase):
    """One response after the other."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.writer = ResponseWriter(self.transport, "nitroproxy-test")  # type: ignore[arg-type]

    def take(self) -> tuple[bytes, dict[bytes, bytes], bytes]:
        written = self.transport.value()
        self.transport.clear()
        return split_head(written)

    def ask(self, method: bytes = b"GET", **more: bool) -> None:
        self.writer.for_request(Request(method, b"/", Fields(), **more), b"an-id")  # type: ignore[arg-type]

    def test_length(self) -> None:
        """A body of known length goes as it is, with that length."""
        self.ask()
        self.writer.head(Response(200, b"OK", Fields([DATE]), content_length=2, declared_length=2))
        self.writer.body(b"ok")
        self.writer.end()
        start, headers, body = self.take()
        self.assertEqual((start, body), (b"HTTP/1.1 200 OK", b"ok"))
        self.assertEqual(headers[b"content-length"], b"2")
        self.assertNotIn(b"transfer-encoding", headers)
        self.assertNotIn(b"connection", headers)

    def test_unknown_length(self) -> None:
        """A body of unknown length is chunked; for an HTTP/1.0 client it ends with the connection, which says so."""
        for length in (CHUNKED, UNTIL_CLOSE):
            for http10, framed in ((False, b"2\r\nok\r\n0\r\n\r\n"), (True, b"ok")):
                self.setUp()
                self.ask(http10=http10)
                self.writer.head(Response(200, b"OK", Fields([DATE]), content_length=length))
                self.writer.body(b"ok")
                self.writer.end()
                _, headers, body = self.take()
                self.assertEqual(body, framed)
                self.assertEqual(headers.get(b"connection"), b"close" if http10 else None)
                self.assertIs(self.writer.close_after, http10)

    def test_one_write(self) -> None:
        """What is here of the body goes with the head, in one write, framed as all of it is."""
        for length, framed in ((CHUNKED, b"2\r\nok\r\n"), (2, b"ok")):
            self.setUp()
            self.ask()
            writes: list[bytes] = []
            self.transport.write = writes.append  # type: ignore[method-assign]
            response = Response(200, b"OK", Fields([DATE]), content_length=length, declared_length=2)
            self.writer.head(response, b"ok")
            self.assertEqual([split_head(written)[2] for written in writes], [framed])

    def test_next_response(self) -> None:
        """Nothing of one response reaches the next, but that the connection ends."""
        self.ask()
        self.writer.head(Response(200, b"OK", Fields([DATE]), content_length=CHUNKED))
        self.writer.end()
        self.take()
        self.ask(keep_alive=False)
        self.assertFalse(self.writer.begun)
        self.writer.head(Response(204, b"No Content", Fields([DATE])))
        self.writer.end()
        _, headers, body = self.take()
        self.assertEqual((headers[b"connection"], body), (b"close", b""))
        self.assertNotIn(b"transfer-encoding", headers)
        self.ask()
        self.assertTrue(self.writer.close_after)

    def test_http10_keep_alive(self) -> None:
        """A client of HTTP/1.0 that wants its connection kept hears that it is (RFC 9112 section 9.3)."""
        self.ask(http10=True)
        self.writer.head(Response(200, b"OK", Fields([DATE]), content_length=0, declared_length=0))
        self.assertEqual(self.take()[1][b"connection"], b"keep-alive")

    def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields and those that Connection names stay here."""
        self.ask()
        fields = Fields([DATE, (b"Connection", b"x-a"), (b"X-A", b"1"), (b"Keep-Alive", b"timeout=5"), (b"X-B", b"2")])
        self.writer.head(Response(204, b"No Content", fields, connection_options=frozenset({b"x-a"})))
        _, headers, _ = self.take()
        self.assertEqual(headers[b"x-b"], b"2")
        self.assertFalse({b"x-a", b"keep-alive", b"connection"} & set(headers))

    def test_interim(self) -> None:
        """A 1xx goes on, and begins no response; a client of HTTP/1.0 would not understand it."""
        for http10 in (False, True):
            self.ask(http10=http10)
            self.writer.interim(Response(103, b"Early Hints", Fields([(b"Link", b"</a>")])))
            expected = b"" if http10 else b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            self.assertEqual(self.transport.value(), expected)
            self.assertFalse(self.writer.begun)
            self.transport.clear()

    def test_problem(self) -> None:
        """A failure is a problem document; to HEAD without it. What follows an incomplete request cannot be read."""
        for method in (b"GET", b"HEAD"):
            for complete in (True, False):
                self.setUp()
                self.ask(method)
                self.writer.problem(ProxyError(Kind.DNS_ERROR, "no such name"), complete)
                start, headers, body = self.take()
                self.assertEqual(start, b"HTTP/1.1 502 Bad Gateway")
                self.assertEqual(headers[b"content-type"], b"application/problem+json")
                self.assertEqual(headers.get(b"connection"), None if complete else b"close")
                self.assertIs(b"no such name" in body, method == b"GET")
                self.assertIs(self.writer.close_after, not complete)

    def test_switch(self) -> None:
        """A 101 names the protocol, and an answered CONNECT has no body and no length (RFC 9110 section 9.3.6)."""
        self.ask()
        self.writer.switching(Response(101, b"Switching Protocols", Fields([(b"Upgrade", b"websocket")])))
        start, headers, _ = self.take()
        self.assertEqual(start, b"HTTP/1.1 101 Switching Protocols")
        self.assertEqual((headers[b"connection"], headers[b"upgrade"]), (b"upgrade", b"websocket"))
        self.ask(b"CONNECT")
        self.writer.connected()
        start, headers, body = self.take()
        self.assertEqual((start[:13], body), (b"HTTP/1.1 200 ", b""))
        self.assertFalse({b"content-length", b"transfer-encoding"} & set(headers))
