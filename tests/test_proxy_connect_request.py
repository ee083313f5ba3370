"""A CONNECT on its way to a tunnel: `nitroproxy.proxy.connect_request`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Request
from nitroproxy.proxy.record import End
from nitroproxy.proxy.route import Dial, Route
from tests.wire import GET, Notes, OneHop, WaitingEndpoint, split_head

CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nX-Request-Id: an-id\r\n\r\n"


class ConnectRequestTests(SynchronousTestCase):
    """From the request to the answer."""

    def setUp(self) -> None:
        self.destination = WaitingEndpoint()
        self.identities: list[Headers] = []
        self.notes = Notes()
        self.hop = OneHop(self.route)
        self.hop.factory.observer = self.notes
        self.client = self.hop.client()

    def route(self, request: Request) -> Route:
        def endpoint_for(identity: Headers) -> WaitingEndpoint:
            self.identities.append(identity)
            return self.destination

        return Dial(endpoint_for)

    def test_identity(self) -> None:
        """The next hop learns under which id the request is known."""
        self.client.receive(CONNECT)
        [identity] = self.identities
        self.assertIn((b"Nitroproxy-Request-Id", b"an-id"), identity)

    def test_answer(self) -> None:
        """The 200 goes out when there is a connection, and not before."""
        self.client.receive(CONNECT)
        self.hop.pass_time(9)
        self.assertEqual(self.client.take(), b"")
        self.destination.accept()
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 200 "))

    def test_timeout(self) -> None:
        """Without a connection in time the attempt is cancelled and the client gets 504."""
        self.client.receive(CONNECT)
        self.hop.pass_time(10.1)
        start, headers, body = split_head(self.client.take())
        self.assertEqual(start, b"HTTP/1.1 504 Gateway Timeout")
        self.assertEqual(headers[b"connection"], b"close")
        self.assertIn(b"no connection within 10 seconds", body)
        self.assertEqual(self.destination.cancelled, 1)
        [record] = self.notes.records
        self.assertEqual((record.error, record.ended_by), (Kind.CONNECTION_TIMEOUT, End.FAILED))

    def test_client_gone(self) -> None:
        """A client that leaves ends the attempt, once, and its record says so."""
        self.client.receive(CONNECT)
        self.client.lose()
        self.assertEqual(self.destination.cancelled, 1)
        self.hop.pass_time(11)
        self.assertEqual([record.ended_by for record in self.notes.records], [End.CLIENT_GONE])

    def test_failure_is_not_a_request(self) -> None:
        """After a failure nothing of what the client sent for its tunnel is read as a request."""
        self.client.receive(CONNECT + GET)
        self.destination.refuse(ProxyError(Kind.CONNECTION_REFUSED, "no"))
        self.assertEqual(self.client.take().count(b"HTTP/1.1 "), 1)
        self.assertTrue(self.client.half_closed)
        self.client.receive(GET)
        self.assertEqual(self.client.take(), b"")

    def test_defect(self) -> None:
        """An exception that nobody expects, once there is a connection, is answered and logged."""

        def fail(record: object, address: object) -> None:
            raise ZeroDivisionError

        self.patch(self.hop.factory.router, "check_tunnel", fail)
        self.client.receive(CONNECT)
        upstream = self.destination.accept()
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(upstream.aborted)

    def test_defect_after_the_answer(self) -> None:
        """One that comes when the client has been told of its tunnel is no bytes of the tunnel: both ends are reset."""

        def fail(record: object) -> None:
            raise ZeroDivisionError

        self.patch(self.hop.factory.observer, "switched", fail)
        self.client.receive(CONNECT)
        upstream = self.destination.accept()
        self.hop.pass_time(0.2)
        self.assertEqual(self.client.take().count(b"HTTP/1.1 "), 1)
        self.assertTrue(self.client.aborted and upstream.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([record.error for record in self.notes.records], [Kind.INTERNAL_ERROR])
