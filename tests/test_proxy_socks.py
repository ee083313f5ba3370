"""SOCKS beside HTTP on one port. No sockets."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.preface.socks5 import reply
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.socks import http_or_socks
from nitroproxy.target import parse_target
from tests.test_preface_socks5 import CHOSEN, GREETING, name, request
from tests.wire import Notes, WaitingEndpoint, Wire, split_head

ASKED = request(3, name(b"site.example"))


class SocksTests(SynchronousTestCase):
    """A listener for both."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.destination = WaitingEndpoint()
        self.notes = Notes()
        self.refusal: ProxyError | None = None
        self.factory = DownstreamFactory(
            "nitroproxy-test",
            self,
            ListenerSettings(header_timeout=5.0),
            Deadlines(self.clock),
            self.notes,
            opening=http_or_socks,
        )

    def route(self, request: Request, record: Record) -> Route:
        """See `Router`."""
        target = parse_target(request.method, request.target)
        assert target is not None
        record.host, record.port = target.origin.host, target.origin.port
        if self.refusal is not None:
            raise self.refusal
        return Dial(lambda identity: self.destination)

    def check_tunnel(self, record: Record, address: object) -> None:
        """See `Router`."""

    def client(self) -> Wire:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4321))
        assert protocol is not None
        return Wire(protocol)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_tunnel(self) -> None:
        """Whole or byte by byte: greeting, answer, request, answer, tunnel; what comes early waits."""
        for size in (1, 1 << 20):
            client = self.client()
            data = GREETING + ASKED + b"early"
            for begin in range(0, len(data), size):
                client.receive(data[begin : begin + size])
            self.assertEqual(client.take(), CHOSEN)
            upstream = self.destination.accept()
            self.assertEqual((client.take(), upstream.take()), (reply(0), b"early"))
            client.receive(b"up")
            upstream.receive(b"down")
            self.assertEqual((client.take(), upstream.take()), (b"down", b"up"))

    def test_polite(self) -> None:
        """A client that waits for each answer gets it."""
        client = self.client()
        client.receive(GREETING)
        self.assertEqual(client.take(), CHOSEN)
        client.receive(ASKED)
        self.assertEqual(client.take(), b"")
        self.destination.accept()
        self.assertEqual(client.take(), reply(0))

    def test_http(self) -> None:
        """Anything else is HTTP, which is answered as HTTP."""
        client = self.client()
        client.receive(b"CONNECT site.example:443 HTTP/1.1\r\nHost: a\r\n\r\n")
        self.destination.accept()
        self.assertIn(b"200", split_head(client.take())[0])
        client = self.client()
        client.receive(b"\x04\x01\x00\x50")
        self.pass_time(5.1)
        self.assertIn(b"HTTP/1.1 ", split_head(client.take())[0])

    def test_record(self) -> None:
        """It is recorded with its destination, as SOCKS5."""
        client = self.client()
        client.receive(GREETING + ASKED)
        upstream = self.destination.accept()
        client.lose()
        self.pass_time(0.1)
        upstream.settle()
        [record] = self.notes.records
        self.assertEqual((record.method, record.host, record.port), (b"SOCKS5", "site.example", 443))

    def test_refused(self) -> None:
        """A failure is a reply, then the connection is closed, and what else comes is read and thrown away."""
        self.refusal = ProxyError(Kind.DESTINATION_NOT_ALLOWED, "no rule")
        client = self.client()
        client.receive(GREETING + ASKED)
        self.assertEqual(client.take(), CHOSEN + reply(2))
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(client.take(), b"")
        self.assertTrue(client.half_closed)
        client.settle()
        self.pass_time(2.1)
        self.assertTrue(client.aborted)
        self.assertIs(self.notes.records[0].error, Kind.DESTINATION_NOT_ALLOWED)

    def test_invalid_name(self) -> None:
        """A name that is none is refused as a target of HTTP is."""
        for text in (b"", b"a b", b"user@host", b"127.1", b"x" * 255, b"\xc3\xa9.example", b"a/b"):
            client = self.client()
            client.receive(GREETING + request(3, name(text)))
            self.assertEqual(client.take(), CHOSEN + reply(8), text)

    def test_refused_with_the_greeting(self) -> None:
        """A request that comes with the greeting and is none that is served: the greeting is answered first."""
        for size in (1, 1 << 20):
            client = self.client()
            data = GREETING + request(3, name(b"site.example"), command=2)
            for begin in range(0, len(data), size):
                client.receive(data[begin : begin + size])
            self.assertEqual(client.take(), CHOSEN + reply(7))

    def test_dial_fails(self) -> None:
        """So is one of the way to the destination."""
        client = self.client()
        client.receive(GREETING + ASKED)
        self.destination.refuse(ProxyError(Kind.CONNECTION_REFUSED, "nobody listens"))
        self.assertEqual(client.take(), CHOSEN + reply(5))

    def test_slow(self) -> None:
        """Greeting and request have header_timeout together, from the first byte on."""
        for sent, answered in ((GREETING[:1], b"\x05\xff"), (GREETING, CHOSEN + reply(1))):
            client = self.client()
            client.receive(sent)
            self.pass_time(4.9)
            self.assertFalse(client.half_closed)
            self.pass_time(0.2)
            self.assertEqual(client.take(), answered)
            self.assertTrue(client.half_closed)

    def test_connection_limit(self) -> None:
        """Above the limit a client gets a general failure."""
        self.factory.settings = replace(self.factory.settings, connections=1)
        self.client().receive(GREETING)
        client = self.client()
        client.receive(GREETING + ASKED)
        self.assertEqual(client.take(), CHOSEN + reply(1))

    def test_client_leaves(self) -> None:
        """A client that leaves while its destination is dialled ends that."""
        client = self.client()
        client.receive(GREETING + ASKED)
        client.lose()
        self.assertEqual(self.destination.cancelled, 1)

    def test_drain(self) -> None:
        """A drain lets a request that has begun arrive and be served."""
        client = self.client()
        client.receive(GREETING)
        done = self.factory.drain(30.0)
        self.pass_time(0.2)
        self.assertFalse(client.disconnecting)
        client.receive(ASKED)
        upstream = self.destination.accept()
        self.assertEqual(client.take(), CHOSEN + reply(0))
        upstream.lose()
        self.pass_time(0.1)
        client.settle()
        self.assertTrue(self.successResultOf(done))
