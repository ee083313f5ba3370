"""Requests that are sent again, and those that never are. No sockets, no real time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.settings import ExchangeSettings
from tests.wire import GET, OneHop, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RetryTests(SynchronousTestCase):
    """What may be tried again, and what must not be."""

    def unreachable(self) -> ProxyError:
        return ProxyError(Kind.ENCLAVE_UNAVAILABLE, "cannot reach the enclave")

    def test_unreachable_hop(self) -> None:
        """Connecting is retried within retry_delay in all, then 503 with Retry-After (F6: within a second)."""
        hop = OneHop(exchange=ExchangeSettings(max_retries=3, retry_delay=0.9))
        client = hop.client()
        client.receive(GET)
        attempts = 0
        for _ in range(22):
            while hop.endpoint.waiting:
                attempts += 1
                hop.endpoint.refuse(self.unreachable())
            hop.pass_time(0.05)
        self.assertEqual(attempts, 4)
        written = client.take()
        self.assertIn(b"503 Service Unavailable", written)
        self.assertIn(b"Retry-After: 1", written)

    def test_hop_comes_back(self) -> None:
        """A request whose body has not begun to leave survives the enclave's restart."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        hop.endpoint.refuse(self.unreachable())
        hop.pass_time(0.3)
        upstream = hop.endpoint.accept()
        self.assertTrue(upstream.take().endswith(b"\r\n\r\nhi"))

    def test_timeout_after_a_retry(self) -> None:
        """A hop that is back but does not answer is given up as any other."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.refuse(self.unreachable())
        hop.pass_time(0.3)
        hop.endpoint.accept()
        hop.pass_time(300.1)
        self.assertIn(b"http_response_timeout", client.take())

    def kept_alive(self) -> tuple[OneHop, Wire, Wire]:
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(OK)
        client.take()
        return hop, client, upstream

    def test_stale_connection(self) -> None:
        """A GET that meets a dead kept-alive connection is sent again on a new one."""
        hop, client, upstream = self.kept_alive()
        client.receive(GET)
        upstream.lose()
        fresh = hop.endpoint.accept()
        fresh.receive(OK)
        self.assertTrue(client.take().endswith(b"ok"))

    def test_connection_that_has_answered(self) -> None:
        """A kept-alive connection that dies after a 1xx was not stale: the request was seen and is not repeated."""
        hop, client, upstream = self.kept_alive()
        client.receive(GET)
        upstream.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        upstream.lose()
        self.assertEqual(hop.endpoint.waiting, [])
        self.assertIn(b"connection_terminated", client.take())

    def test_post_is_never_sent_twice(self) -> None:
        """A POST that may have been seen is answered 502 instead."""
        hop, client, upstream = self.kept_alive()
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        upstream.lose()
        self.assertEqual(hop.endpoint.waiting, [])
        self.assertIn(b"connection_terminated", client.take())

    def test_post_without_a_body_is_never_sent_twice(self) -> None:
        """It is the method that counts, not whether a body was lost with it."""
        hop, client, upstream = self.kept_alive()
        client.receive(GET.replace(b"GET", b"POST"))
        upstream.lose()
        self.assertEqual(hop.endpoint.waiting, [])
        self.assertIn(b"connection_terminated", client.take())

    def test_body_is_never_sent_twice(self) -> None:
        """A PUT might be sent again, but its body is no longer here: 502."""
        hop, client, upstream = self.kept_alive()
        client.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        upstream.lose()
        self.assertEqual(hop.endpoint.waiting, [])
        self.assertIn(b"connection_terminated", client.take())

    def test_bytes_on_an_idle_connection(self) -> None:
        """A kept connection that says something unasked is ended: no request gets that for its answer (S9)."""
        hop, client, upstream = self.kept_alive()
        upstream.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")
        self.assertTrue(upstream.aborted)
        self.assertEqual(hop.pool.idle, 0)
        client.receive(GET)
        hop.endpoint.accept().receive(OK)
        self.assertTrue(client.take().endswith(b"ok"))

    def test_new_connection_is_not_retried(self) -> None:
        """A GET on a connection of its own is not sent again: the upstream may be what kills it."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.accept().lose()
        self.assertEqual(hop.endpoint.waiting, [])
        self.assertIn(b"connection_terminated", client.take())

    def test_client_gone(self) -> None:
        """When the client goes, so do the upstream connection and the attempts to make one."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        client.lose()
        self.assertEqual(hop.endpoint.cancelled, 1)
        client = hop.client()
        client.receive(GET)
        del hop.endpoint.waiting[0]
        upstream = hop.endpoint.accept()
        client.lose()
        self.assertTrue(upstream.aborted)
