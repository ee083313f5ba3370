"""The router of connections that have one destination; what it does in a listener: `test_proxy_opening`."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Fields
from nitroproxy.preface.proxy_protocol import Header, Peers
from nitroproxy.proxy.opening import Passage
from nitroproxy.proxy.passage import IntroducedEndpoint, PassageRouter
from nitroproxy.proxy.route import Dial
from nitroproxy.proxy.trace import trace_headers
from tests.wire import Maker, WaitingEndpoint, record, request


class RouterTests(SynchronousTestCase):
    """Where connections go."""

    def setUp(self) -> None:
        self.endpoint = WaitingEndpoint()
        self.record = record()

    def route(self, header: Header, *, sends: bool = False) -> Dial:
        router = PassageRouter(self.endpoint, ("127.0.0.1", 443), sends_header=sends)
        route = router.route(Passage(b"CONNECT", b"", Fields(), header=header), self.record)
        assert isinstance(route, Dial)
        return route

    def test_peers(self) -> None:
        """The record has the destination, and the client by whichever family."""
        for host, kind in (("192.0.2.1", IPv4Address), ("2001:db8::1", IPv6Address)):
            self.route(Header(Peers((host, 7), (host, 443))))
            self.assertEqual(self.record.peer, kind("TCP", host, 7))
            self.assertEqual((self.record.host, self.record.port), ("127.0.0.1", 443))

    def test_unknown_client(self) -> None:
        """Without a client's address the connection's own peer stays."""
        self.route(Header())
        self.assertIsNone(self.record.peer)

    def test_plain(self) -> None:
        """The destination itself, when it is told nothing."""
        self.assertIs(self.route(Header()).endpoint_for(trace_headers(b"id", b"")), self.endpoint)

    def test_request(self) -> None:
        """A request has no business here."""
        router = PassageRouter(self.endpoint, ("127.0.0.1", 443))
        error = self.assertRaises(ProxyError, router.route, request(b"CONNECT", b"a.example:443"), self.record)
        self.assertIs(error.kind, Kind.INTERNAL_ERROR)


class IntroducedTests(SynchronousTestCase):
    """A connection that begins with an introduction."""

    def test_first(self) -> None:
        """The introduction is written first."""
        waiting = WaitingEndpoint()
        connected = IntroducedEndpoint(waiting, b"hello ").connect(Maker(Protocol))
        wire = waiting.accept()
        self.successResultOf(connected).transport.write(b"world")  # type: ignore[attr-defined]
        self.assertEqual(wire.take(), b"hello world")

    def test_failure(self) -> None:
        """A failure is the endpoint's."""
        waiting = WaitingEndpoint()
        connected = IntroducedEndpoint(waiting, b"hello").connect(Maker(Protocol))
        waiting.refuse(ProxyError(Kind.UNREACHABLE, "why"))
        self.assertIs(self.failureResultOf(connected, ProxyError).value.kind, Kind.UNREACHABLE)
