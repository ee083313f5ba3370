"""Tunnels: CONNECT and upgrades. Bytes both ways, half-close, abort, backpressure. No sockets."""

from __future__ import annotations

import socket

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.route import Dial, Route
from tests.wire import GET, Notes, OneHop, WaitingEndpoint, Wire, split_head

CONNECT = b"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\n\r\n"


class ConnectTests(SynchronousTestCase):
    """CONNECT (RFC 9110 section 9.3.6)."""

    def setUp(self) -> None:
        self.destination = WaitingEndpoint()
        self.hop = OneHop(self.route)
        self.client = self.hop.client()

    def route(self, request: Request) -> Route:
        return Dial(lambda identity: self.destination)

    def tunnel(self, early: bytes = b"") -> Wire:
        self.client.receive(CONNECT + early)
        upstream = self.destination.accept()
        start, _, rest = split_head(self.client.take())
        self.assertEqual((start, rest), (b"HTTP/1.1 200 Connection established", b""))
        return upstream

    def test_bytes_both_ways(self) -> None:
        """After the 200 everything passes as it is, also what came with the request."""
        upstream = self.tunnel(early=b"\x16\x03\x01")
        self.assertEqual(upstream.take(), b"\x16\x03\x01")
        self.client.receive(b"up")
        upstream.receive(b"down\r\n\r\n")
        self.assertEqual((upstream.take(), self.client.take()), (b"up", b"down\r\n\r\n"))

    def test_through_the_next_proxy(self) -> None:
        """The same when the tunnel leads through another proxy, asked by CONNECT in its turn."""
        hop = OneHop(lambda request: Dial(lambda identity: ConnectEndpoint(self.destination, b"site.example:443", [])))
        client = hop.client()
        client.receive(CONNECT + b"early")
        upstream = self.destination.accept()
        self.assertTrue(upstream.take().startswith(b"CONNECT site.example:443 "))
        upstream.receive(b"HTTP/1.1 200 OK\r\n\r\nhello")
        self.assertTrue(client.take().endswith(b"\r\n\r\nhello"))
        self.assertEqual(upstream.take(), b"early")
        upstream.receive(b"down")
        client.receive(b"up")
        self.assertEqual((upstream.take(), client.take()), (b"up", b"down"))

    def test_half_close_each_way(self) -> None:
        """An end of one direction is passed on as that; both ended, both connections close."""
        upstream = self.tunnel()
        self.client.end()
        self.assertTrue(upstream.half_closed)
        self.assertFalse(upstream.disconnecting)
        upstream.receive(b"still here")
        self.assertEqual(self.client.take(), b"still here")
        upstream.end()
        self.client.settle()
        upstream.settle()
        self.assertTrue(self.client.closed and upstream.closed)
        self.assertFalse(self.client.aborted or upstream.aborted)
        self.assertEqual(self.hop.factory.connections, set())

    def test_abort_is_passed_on(self) -> None:
        """A connection that breaks breaks the other."""
        upstream = self.tunnel()
        upstream.lose()
        self.hop.pass_time(0.1)
        self.assertTrue(self.client.aborted)

    def test_clean_end_is_passed_on(self) -> None:
        """A connection that ends on purpose lets the other send its last bytes."""
        upstream = self.tunnel()
        upstream.receive(b"last words")
        upstream.lose(ConnectionDone())
        self.assertTrue(self.client.disconnecting)
        self.assertFalse(self.client.aborted)

    def test_last_words(self) -> None:
        """A client that reads slowly has idle_timeout for what a destination has left behind; a destination has ten
        seconds for what a client has."""
        upstream = self.tunnel()
        upstream.receive(b"last words")
        upstream.lose(ConnectionDone())
        self.hop.pass_time(59.0)
        self.assertFalse(self.client.aborted)
        self.hop.pass_time(1.1)
        self.assertTrue(self.client.aborted)
        self.client = self.hop.client()
        upstream = self.tunnel()
        self.client.lose(ConnectionDone())
        self.hop.pass_time(10.1)
        self.assertTrue(upstream.aborted)

    def test_backpressure(self) -> None:
        """Each side stops while the other is full."""
        upstream = self.tunnel()
        assert self.client.producer is not None and upstream.producer is not None
        self.client.producer.pauseProducing()
        self.assertTrue(upstream.paused)
        self.client.producer.resumeProducing()
        self.assertFalse(upstream.paused)
        upstream.producer.pauseProducing()
        self.assertTrue(self.client.paused)

    def test_client_that_reads_no_more(self) -> None:
        """A client that has ended only its reading, while the destination takes nothing, has not gone; and the look
        for those that have goes on."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        self.client.socket = ours  # type: ignore[attr-defined]
        upstream = self.tunnel()
        assert upstream.producer is not None
        upstream.producer.pauseProducing()
        theirs.shutdown(socket.SHUT_RD)
        self.hop.pass_time(1.0)
        self.assertFalse(self.client.aborted)
        theirs.close()
        self.hop.pass_time(1.0)
        self.assertTrue(self.client.disconnecting)

    def test_drain(self) -> None:
        """A drain ends a tunnel that has fallen silent, and leaves one in use alone."""
        upstream = self.tunnel()
        done = self.hop.factory.drain(30.0)
        for _ in range(3):
            self.hop.pass_time(4)
            upstream.receive(b".")
        self.assertFalse(self.client.aborted)
        self.hop.pass_time(5.1)
        self.assertTrue(self.client.aborted)
        self.client.settle()
        upstream.settle()
        self.assertTrue(self.successResultOf(done))

    def test_not_allowed_any_more(self) -> None:
        """A tunnel that another router refuses ends at once, visibly both ways, and its record says why; one that it
        allows stays."""
        notes = Notes()
        self.hop.factory.observer = notes
        upstream = self.tunnel()
        idle = self.hop.client()
        self.hop.factory.end_refused_tunnels()
        [asked_before, (record, address)] = self.hop.asked
        self.assertEqual(asked_before, (record, address), "it was asked when the destination had been dialled, too")
        self.assertEqual((record.method, address), (b"CONNECT", upstream.getPeer()))
        self.assertFalse(self.client.aborted or upstream.aborted)
        self.hop.tunnel_refusal = ProxyError(Kind.DESTINATION_DENIED, "not any more")
        self.hop.factory.end_refused_tunnels()
        self.assertTrue(self.client.aborted and upstream.aborted)
        self.assertFalse(idle.aborted)
        self.client.settle()
        upstream.settle()
        self.assertEqual(notes.records, [record])
        self.assertEqual((record.error, record.found_by), (Kind.DESTINATION_DENIED, "nitroproxy-test"))

    def test_not_allowed_any_more_when_dialled(self) -> None:
        """Nor does a tunnel come about that was let in before and is dialled only now."""
        self.client.receive(CONNECT)
        later = OneHop()
        later.tunnel_refusal = ProxyError(Kind.ADDRESS_DENIED, "not any more")
        self.hop.factory.router = later
        upstream = self.destination.accept()
        self.assertTrue(upstream.aborted)
        start, _, body = split_head(self.client.take())
        self.assertEqual(start, b"HTTP/1.1 403 Forbidden")
        self.assertIn(b"address_denied", body)

    def test_refused(self) -> None:
        """A destination that cannot be had is a problem document and the end of the connection: what the client has
        sent for the tunnel is not read as a request."""
        self.client.receive(CONNECT + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        self.destination.refuse(ProxyError(Kind.CONNECTION_REFUSED, "no", hop="nitroproxy-relay"))
        start, headers, body = split_head(self.client.take())
        self.assertEqual(start, b"HTTP/1.1 502 Bad Gateway")
        self.assertEqual(headers[b"proxy-status"], b"nitroproxy-relay; error=connection_refused")
        self.assertIn(b'"hop": "nitroproxy-relay"', body)
        self.assertEqual(headers[b"connection"], b"close")
        self.assertTrue(self.client.half_closed)
        self.client.receive(GET)
        self.assertEqual(self.client.take(), b"")

    def test_reset_after_an_answer(self) -> None:
        """What had arrived before a reset still leaves, then the reset is passed on."""
        upstream = self.tunnel()
        upstream.receive(b"413 and good bye")
        upstream.lose()
        self.assertFalse(self.client.aborted)
        self.assertEqual(self.client.take(), b"413 and good bye")
        self.hop.pass_time(0.1)
        self.assertTrue(self.client.aborted)

    def test_half_close_towards_tls(self) -> None:
        """TLS cannot end one direction alone: the client's half-close stays here until the other side ends too."""
        upstream = self.tunnel()
        directlyProvides(upstream, ISSLTransport)
        self.client.end()
        self.assertFalse(upstream.half_closed)
        upstream.receive(b"answer")
        self.assertEqual(self.client.take(), b"answer")
        upstream.end()
        self.client.settle()
        upstream.settle()
        self.assertTrue(self.client.closed)
        self.assertTrue(upstream.closed)

    def test_denied(self) -> None:
        """Nor when the CONNECT is refused before anything is dialled."""

        def refuse(request: Request) -> Route:
            raise ProxyError(Kind.DESTINATION_DENIED, "no")

        hop = OneHop(refuse)
        client = hop.client()
        client.receive(CONNECT + GET)
        self.assertEqual(client.take().count(b"HTTP/1.1 "), 1)
        self.assertTrue(client.half_closed)

    def test_made_while_draining(self) -> None:
        """A tunnel that comes about while the listener drains ends like those that were there before."""
        self.client.receive(CONNECT)
        done = self.hop.factory.drain(30.0)
        upstream = self.destination.accept()
        self.hop.pass_time(5.1)
        self.assertTrue(self.client.aborted)
        self.client.settle()
        upstream.settle()
        self.assertTrue(self.successResultOf(done))

    def test_timeout(self) -> None:
        """A destination that does not answer in time is given up, once."""
        self.client.receive(CONNECT)
        self.hop.pass_time(10.1)
        self.assertEqual(self.client.take().count(b"504 Gateway Timeout"), 1)
        self.assertEqual(self.destination.cancelled, 1)

    def test_client_gone(self) -> None:
        """A client that goes while its tunnel is dialled leaves nothing behind."""
        self.client.receive(CONNECT)
        self.client.lose()
        self.assertEqual(self.destination.cancelled, 1)
        self.hop.pass_time(11)

    def test_server_speaks_first(self) -> None:
        """What the destination says before the tunnel is joined is not lost, nor is its end."""
        self.client.receive(CONNECT)
        factory, result = self.destination.waiting.pop()
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        upstream = Wire(protocol)
        upstream.receive(b"220 hello\r\n")
        upstream.end()
        result.callback(protocol)
        self.assertTrue(self.client.take().endswith(b"\r\n\r\n220 hello\r\n"))
        self.assertTrue(self.client.half_closed)


class UpgradeTests(SynchronousTestCase):
    """Upgrade and 101 (RFC 9110 section 7.8)."""

    ASK = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def test_switch(self) -> None:
        """The offer goes on, the 101 comes back, then bytes pass as they are."""
        hop = OneHop()
        client = hop.client()
        client.receive(self.ASK)
        upstream = hop.endpoint.accept()
        _, headers, _ = split_head(upstream.take())
        self.assertEqual((headers[b"connection"], headers[b"upgrade"]), (b"upgrade", b"websocket"))
        upstream.receive(self.SWITCH + b"\x81\x02hi")
        written = client.take()
        self.assertTrue(written.startswith(b"HTTP/1.1 101 "))
        self.assertTrue(written.endswith(b"\r\n\r\n\x81\x02hi"))
        client.receive(b"\x81\x80")
        self.assertEqual(upstream.take(), b"\x81\x80")
        upstream.lose()
        hop.pass_time(0.1)
        self.assertTrue(client.aborted)
        client.settle()
        self.assertEqual(hop.pool.open, 0)

    def test_not_allowed_any_more(self) -> None:
        """A 101 from where there may be no tunnel any more makes none."""
        hop = OneHop()
        client = hop.client()
        client.receive(self.ASK)
        hop.tunnel_refusal = ProxyError(Kind.DESTINATION_DENIED, "not any more")
        upstream = hop.endpoint.accept()
        upstream.receive(self.SWITCH)
        self.assertTrue(upstream.aborted)
        self.assertIn(b"destination_denied", client.take())

    def test_declined(self) -> None:
        """An upstream that answers otherwise answers as always."""
        hop = OneHop()
        client = hop.client()
        client.receive(self.ASK)
        hop.endpoint.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        self.assertTrue(client.take().endswith(b"no"))

    def test_unasked(self) -> None:
        """Without an offer no 101 makes a tunnel, whatever its Upgrade says: not even one of empty members."""
        for switched in (
            b"Upgrade: websocket",
            b"Upgrade: ,",
            b"Upgrade: , ,",
            b"Upgrade: \t,",
            b"Upgrade: ,\r\nUpgrade: ,",
            b"Upgrade:",
            b"X: y",
        ):
            hop = OneHop()
            client = hop.client()
            client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            upstream = hop.endpoint.accept()
            upstream.receive(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n" + switched + b"\r\n\r\n")
            self.assertIn(b"http_upgrade_failed", client.take(), switched)
            self.assertTrue(upstream.aborted, switched)
            # The client's next request is read as one.
            client.receive(GET)
            self.assertEqual(len(hop.endpoint.waiting), 1, switched)

    def test_an_offer_of_nothing(self) -> None:
        """An Upgrade field of empty members is no offer: nothing is sent on, and no switch is taken."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: ,\t,\r\n\r\n")
        upstream = hop.endpoint.accept()
        self.assertNotIn(b"pgrade", upstream.take())
        upstream.receive(self.SWITCH)
        self.assertIn(b"http_upgrade_failed", client.take())

    def test_another_protocol(self) -> None:
        """A 101 to what the client did not offer, or to nothing in particular, is refused; case does not matter."""
        for switched, status in (
            (b"Upgrade: evil", b"502"),
            (b"Upgrade: websocket, evil", b"502"),
            (b"Upgrade: websocket\r\nUpgrade: evil", b"502"),
            (b"Upgrade: ", b"502"),
            (b"Upgrade: ,", b"502"),
            (b"Upgrade: , ,\r\nUpgrade:", b"502"),
            (b"X: y", b"502"),
            (b"Upgrade: WebSocket", b"101"),
            (b"Upgrade: , websocket,", b"101"),
            (b"Upgrade: chat/2,websocket", b"101"),
        ):
            hop = OneHop()
            client = hop.client()
            client.receive(self.ASK.replace(b"websocket", b"chat/2 , websocket"))
            hop.endpoint.accept().receive(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + switched + b"\r\n\r\n"
            )
            self.assertEqual(client.take()[9:12], status, switched)
