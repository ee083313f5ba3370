"""Requests for another hop's pages."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.fetch import fetch
from tests.wire import OneHop, split_head


class FetchTests(SynchronousTestCase):
    """A small request to another hop."""

    def setUp(self) -> None:
        self.hop = OneHop()
        self.result = Deferred.fromCoroutine(fetch(self.hop.pool, "next", b"/health", self.hop.deadlines, 1.0, 10))

    def test_answer(self) -> None:
        """The result is the status and the whole body."""
        wire = self.hop.endpoint.accept()
        self.assertTrue(wire.take().startswith(b"GET /health HTTP/1.1\r\n"))
        wire.receive(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        wire.receive(b"1\r\nc\r\n0\r\n\r\n")
        self.assertEqual(self.successResultOf(self.result), (503, b"abc"))
        wire.settle()
        self.assertEqual(self.hop.pool.open, 0)

    def test_request(self) -> None:
        """A method, fields, a host and a body of the caller's; a body of no bytes has a length, too."""
        fetching = fetch(
            self.hop.pool,
            "next",
            b"/x",
            self.hop.deadlines,
            1.0,
            10,
            method=b"PUT",
            body=b"",
            headers=[(b"A", b"b")],
            host=b"h",
        )
        Deferred.fromCoroutine(fetching)
        self.hop.endpoint.accept()
        line, fields, _ = split_head(self.hop.endpoint.accept().take())
        self.assertEqual((line, fields[b"a"], fields[b"host"]), (b"PUT /x HTTP/1.1", b"b", b"h"))
        self.assertEqual(fields[b"content-length"], b"0")

    def failure(self) -> Kind:
        error: ProxyError = self.failureResultOf(self.result, ProxyError).value
        return error.kind

    def test_no_connection(self) -> None:
        """The time limit holds while connecting."""
        self.hop.pass_time(1.1)
        self.assertIs(self.failure(), Kind.CONNECTION_TIMEOUT)

    def test_no_answer(self) -> None:
        """The time limit also holds while waiting for the answer."""
        wire = self.hop.endpoint.accept()
        self.hop.pass_time(1.1)
        self.assertIs(self.failure(), Kind.HTTP_RESPONSE_TIMEOUT)
        self.assertTrue(wire.aborted)

    def test_too_long(self) -> None:
        """If the answer is longer than the caller accepts the connection is ended; exactly that length is accepted."""
        wire = self.hop.endpoint.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789")
        self.assertNoResult(self.result)
        wire.receive(b"x")
        self.assertIs(self.failure(), Kind.CONTENT_TOO_LARGE)
        self.assertTrue(wire.aborted)

    def test_lost(self) -> None:
        """An answer that breaks off is a failure."""
        wire = self.hop.endpoint.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        wire.lose()
        self.assertIs(self.failure(), Kind.HTTP_RESPONSE_INCOMPLETE)
