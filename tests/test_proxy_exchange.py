"""One request through the engine: forwarding, streaming, truncation. No sockets, no real time."""

from __future__ import annotations

import gc
import json

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Fields, Response
from nitroproxy.proxy.trace import ViaName
from tests.wire import GET, OneHop, split_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ForwardingTests(SynchronousTestCase):
    """A request goes on and its response comes back."""

    def test_get(self) -> None:
        """The head is rewritten for the next hop, and the response arrives with its body."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        start, headers, _ = split_head(upstream.take())
        self.assertEqual(start, b"GET /thing HTTP/1.1")
        self.assertEqual(headers[b"host"], b"next.example")
        self.assertTrue(hop.factory.via_name.is_in([headers[b"via"]]))
        self.assertRegex(headers[b"nitroproxy-request-id"], rb"^[0-9a-f]{32}$")
        upstream.receive(OK)
        start, answered, body = split_head(client.take())
        self.assertEqual((start, body), (b"HTTP/1.1 200 OK", b"ok"))
        for name in (b"x-request-id", b"nitroproxy-request-id"):
            self.assertEqual(answered[name], headers[b"nitroproxy-request-id"])
        self.assertFalse(client.disconnecting)

    def test_hop_by_hop_fields_stay_here(self) -> None:
        """Connection's fields, those it names and the proxy's credentials go no further, either way (S6)."""
        hop = OneHop()
        client = hop.client()
        client.receive(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\nTE: trailers\r\n"
            b"Keep-Alive: 5\r\nProxy-Authorization: Basic Zm9v\r\nAccept: */*\r\n\r\n"
        )
        upstream = hop.endpoint.accept()
        _, headers, _ = split_head(upstream.take())
        self.assertEqual(set(headers), {b"host", b"accept", b"via", b"nitroproxy-request-id"})
        upstream.receive(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
            b"Connection: x-hidden\r\nX-Hidden: 1\r\nProxy-Authenticate: x\r\n\r\n"
        )
        _, headers, _ = split_head(client.take())
        ours = {b"via", b"x-request-id", b"nitroproxy-request-id"}
        self.assertEqual(set(headers), {b"content-length", b"date", *ours})

    def test_connection_is_used_again(self) -> None:
        """Two requests of one client, and one of another, go over one upstream connection."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(OK)
        client.receive(GET)
        upstream.receive(OK)
        other = hop.client()
        other.receive(GET)
        upstream.receive(OK)
        self.assertEqual(upstream.take().count(b"GET /thing"), 3)
        self.assertEqual(client.take().count(b"200 OK"), 2)
        self.assertEqual(other.take().count(b"200 OK"), 1)
        self.assertEqual(hop.endpoint.waiting, [])

    def test_idle_connection_keeps_nothing(self) -> None:
        """A connection that waits for its next request does not keep the response to its last."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        before = {id(found) for found in gc.get_objects() if isinstance(found, Response)}
        hop.endpoint.accept().receive(OK)
        self.assertEqual(hop.pool.idle, 1)
        gc.collect()
        kept = [found for found in gc.get_objects() if isinstance(found, Response) and id(found) not in before]
        self.assertEqual(kept, [])

    def test_pipelined_requests_in_order(self) -> None:
        """Requests sent together are answered one after the other, each by its own response."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET.replace(b"thing", b"1") + GET.replace(b"thing", b"2"))
        upstream = hop.endpoint.accept()
        self.assertEqual(upstream.take().count(b"GET"), 1)
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        self.assertIn(b"GET /2 ", upstream.take())
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
        first, second = client.take().split(b"HTTP/1.1 200 OK")[1:]
        self.assertTrue(first.endswith(b"\r\n\r\n1"))
        self.assertTrue(second.endswith(b"\r\n\r\n2"))

    def test_chunked_both_ways(self) -> None:
        """A body of unknown length is decoded, and chunked again for the other side."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        upstream = hop.endpoint.accept()
        client.receive(b"2;x=y\r\nde\r\n0\r\nTrailer: dropped\r\n\r\n")
        self.assertTrue(upstream.take().endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
        upstream.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n")
        upstream.receive(b"0\r\n\r\n")
        self.assertTrue(client.take().endswith(b"\r\n\r\n1\r\nz\r\n0\r\n\r\n"))

    def test_one_write(self) -> None:
        """A response that is here whole goes to the client in one write, and its bytes are counted."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        writes: list[bytes] = []
        client.write = writes.append  # type: ignore[method-assign]
        hop.endpoint.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(len(writes), 1)
        self.assertTrue(writes[0].endswith(b"\r\n\r\nok"))

    def test_http10_client(self) -> None:
        """An HTTP/1.0 client gets a chunked response unchunked, ended by the connection."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"GET / HTTP/1.0\r\n\r\n")
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n")
        client.settle()
        _, headers, body = split_head(client.take())
        self.assertEqual(body, b"z")
        self.assertNotIn(b"transfer-encoding", headers)
        self.assertTrue(client.closed)
        self.assertFalse(client.aborted)

    def test_head_and_304_have_no_body(self) -> None:
        """A response to HEAD keeps its Content-Length and has no body; the connection goes on."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET.replace(b"GET", b"HEAD"))
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        client.receive(GET)
        upstream.receive(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")
        written = client.take()
        self.assertIn(b"Content-Length: 99", written)
        self.assertIn(b"304 Not Modified", written)
        self.assertTrue(written.endswith(b"\r\n\r\n"))

    def test_expect_continue(self) -> None:
        """The client's expectation goes on, the upstream's 100 comes back, then the body flows."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        upstream = hop.endpoint.accept()
        self.assertIn(b"Expect: 100-continue", upstream.take())
        upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.receive(b"hi")
        self.assertEqual(upstream.take(), b"hi")
        upstream.receive(OK)
        self.assertIn(b"200 OK", client.take())

    def test_early_answer(self) -> None:
        """An answer before the request's end reaches the client, and neither connection is used again."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nstart")
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(b"413 Too Large", client.take())
        self.assertTrue(client.half_closed)
        self.assertTrue(upstream.aborted)


class FailureTests(SynchronousTestCase):
    """What cannot be served is told, with the reason."""

    def problem(self, written: bytes) -> tuple[bytes, dict[str, object]]:
        start, headers, body = split_head(written)
        self.assertEqual(headers[b"content-type"], b"application/problem+json")
        document: dict[str, object] = json.loads(body)
        self.assertEqual(headers[b"x-request-id"], str(document["request_id"]).encode())
        self.assertIn(b"nitroproxy-test; error=", headers[b"proxy-status"])
        return start, document

    def test_upstream_lost_before_a_response(self) -> None:
        """The client is told that the connection ended, with 502."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.accept().lose()
        start, document = self.problem(client.take())
        self.assertEqual(start, b"HTTP/1.1 502 Bad Gateway")
        self.assertEqual(document["error"], "connection_terminated")

    def test_response_timeout(self) -> None:
        """No response in time is 504, and the upstream connection is given up."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        hop.pass_time(299.9)
        self.assertEqual(client.take(), b"")
        hop.pass_time(0.2)
        start, document = self.problem(client.take())
        self.assertEqual((start, document["error"]), (b"HTTP/1.1 504 Gateway Timeout", "http_response_timeout"))
        self.assertTrue(upstream.aborted)

    def test_response_timeout_after_slow_connecting(self) -> None:
        """The time is that since the request was here: connecting does not add to it."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.pass_time(9)
        hop.endpoint.accept()
        hop.pass_time(290.9)
        self.assertEqual(client.take(), b"")
        hop.pass_time(0.2)
        self.assertIn(b"http_response_timeout", client.take())

    def test_connect_timeout(self) -> None:
        """A connection that does not come up in time is cancelled and 504."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.pass_time(10.1)
        _, document = self.problem(client.take())
        self.assertEqual(document["error"], "connection_timeout")
        self.assertEqual(hop.endpoint.cancelled, 1)
        self.assertEqual(hop.pool.open, 0)

    def test_interim_flood(self) -> None:
        """More than eight interim responses are a violation (S9)."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9)
        self.assertIn(b"http_protocol_error", client.take())
        self.assertTrue(upstream.aborted)

    def test_large_interim_heads(self) -> None:
        """So are fewer that together are larger than one head may be: they go to a client that may not read (F4)."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        for _ in range(3):
            upstream.receive(b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 30_000 + b"\r\n\r\n")
        self.assertIn(b"http_protocol_error", client.take())
        self.assertTrue(upstream.aborted)

    def test_a_large_head_is_not_kept(self) -> None:
        """While a request waits for its response its fields are not kept, unless they may have to be sent again."""
        for pooled in (False, True):
            hop = OneHop()
            client = hop.client()
            if pooled:
                client.receive(GET)
                hop.endpoint.accept().receive(OK)
            client.receive(GET.replace(b"\r\n\r\n", b"\r\nX-Large: " + b"x" * 30_000 + b"\r\n\r\n"))
            if not pooled:
                self.assertIn(b"X-Large: ", hop.endpoint.accept().take())
            kept = [found for found in gc.get_objects() if isinstance(found, Fields) and b"x-large" in found.values]
            self.assertEqual(len(kept), int(pooled))

    def test_surplus_bytes_end_the_connection(self) -> None:
        """An upstream that says more than was asked is not asked again (S9)."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(client.take().endswith(b"ok"))
        self.assertTrue(upstream.aborted)
        self.assertEqual(hop.pool.idle, 0)

    def test_loop(self) -> None:
        """A request that comes back with the Via that it left with is refused, also by another process of the same
        daemon (S6)."""
        hop, worker = OneHop(), OneHop()
        key = bytes(16)
        hop.factory.via_name, worker.factory.via_name = (ViaName("nitroproxy-test", key) for _ in range(2))
        hop.client().receive(GET)
        _, headers, _ = split_head(hop.endpoint.accept().take())
        for at in (hop, worker):
            client = at.client()
            client.receive(GET.replace(b"\r\n\r\n", b"\r\nVia: 1.1 other, " + headers[b"via"] + b"\r\n\r\n"))
            self.assertIn(b"proxy_loop_detected", client.take())

    def test_trace(self) -> None:
        """TRACE is 405 and says what is allowed (S7)."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET.replace(b"GET", b"TRACE"))
        start, headers, _ = split_head(client.take())
        self.assertEqual(start, b"HTTP/1.1 405 Method Not Allowed")
        self.assertIn(b"GET", headers[b"allow"])
