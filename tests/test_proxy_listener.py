"""What a listener's connections share: the limit, the drain, who may use it, and what observers are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.errors import Kind
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.reserve import SIZE
from nitroproxy.proxy.route import Dial, Local, Route
from nitroproxy.proxy.settings import ListenerSettings
from tests.wire import GET, Notes, OneHop, WaitingEndpoint, Wire, split_head

LIVE = b"GET /health/live HTTP/1.1\r\nHost: client.example\r\n\r\n"
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Live(Resource):
    """A page."""

    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        return b"alive"


def pages_and_tunnels(request: Request) -> Route:
    """A page of our own for its path, a tunnel for everything but that."""
    if request.target == b"/health/live":
        return Local(Site(Live()))
    return Dial(lambda identity: WaitingEndpoint())


class LimitTests(SynchronousTestCase):
    """Who is let in."""

    def test_connection_limit(self) -> None:
        """A request on one connection too many is answered 503 with Retry-After, and the connection closed (F2)."""
        hop = OneHop(connections=1)
        first, second = hop.client(), hop.client()
        second.receive(GET)
        self.assert_refused(second, "all 1 connections of this listener are in use")
        self.assertEqual(first.take(), b"")
        self.assertEqual(hop.endpoint.waiting, [])

    def assert_refused(self, wire: Wire, why: str) -> None:
        start, headers, body = split_head(wire.take())
        self.assertEqual(start, b"HTTP/1.1 503 Service Unavailable")
        self.assertEqual((headers[b"retry-after"], headers[b"connection"]), (b"1", b"close"))
        self.assertIn(why, body.decode())
        wire.settle()
        self.assertTrue(wire.closed or wire.half_closed)

    def test_own_pages(self) -> None:
        """Above the limit a page of our own is served, once; anything else is refused, whatever it is (K2)."""
        hop = OneHop(connections=1, route=pages_and_tunnels)
        tunnel = hop.client()
        tunnel.receive(CONNECT)
        live, connect, upgrade = hop.client(), hop.client(), hop.client()
        live.receive(LIVE)
        start, headers, _ = split_head(live.take())
        self.assertEqual((start, headers[b"connection"]), (b"HTTP/1.1 200 OK", b"close"))
        live.settle()
        self.assertTrue(live.closed)
        connect.receive(CONNECT)
        self.assert_refused(connect, "all 1 connections of this listener are in use")
        upgrade.receive(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        self.assert_refused(upgrade, "all 1 connections of this listener are in use")

    def test_pages_take_no_place(self) -> None:
        """Within the limit a page of our own is served as ever, and the connection kept."""
        hop = OneHop(connections=1, route=pages_and_tunnels)
        client = hop.client()
        for _ in range(3):
            client.receive(LIVE)
            start, headers, _ = split_head(client.take())
            self.assertEqual(start, b"HTTP/1.1 200 OK")
            self.assertNotIn(b"connection", headers)

    def test_place_that_becomes_free(self) -> None:
        """A connection above the limit is served like any other if a place is free when its request has come."""
        hop = OneHop(connections=1)
        first, second = hop.client(), hop.client()
        first.lose()
        second.receive(GET)
        upstream = hop.endpoint.accept()
        upstream.receive(OK)
        second.receive(GET)
        upstream.receive(OK)
        self.assertNotIn(b"Connection: close", second.take())
        hop.pass_time(5.2)
        second.settle()
        self.assertFalse(second.closed)

    def test_a_second_for_the_head(self) -> None:
        """A connection above the limit that sends no complete head within a second is answered 503 and closed."""
        hop = OneHop(connections=1)
        notes = hop.factory.observer = Notes()
        hop.client()
        silent, slow = hop.client(), hop.client()
        hop.pass_time(0.8)
        slow.receive(GET[:20])
        self.assertEqual(silent.take(), b"")
        hop.pass_time(0.4)
        for wire in (silent, slow):
            self.assert_refused(wire, "no more connections are accepted")
        self.assertTrue(silent.closed)
        self.assertTrue(slow.half_closed, "a close would reset it before it has read its answer")
        self.assertEqual([record.error for record in notes.records], [Kind.CONNECTION_LIMIT_REACHED] * 2)

    def test_malformed_in_the_reserve(self) -> None:
        """What is no request is answered once, and counts once."""
        hop = OneHop(connections=1)
        hop.factory.observer = notes = Notes()
        hop.client()
        client = hop.client()
        client.receive(b"GET\r\n\r\n")
        hop.pass_time(1.2)
        self.assertEqual(client.take().count(b"HTTP/1.1 "), 1)
        self.assertEqual([record.status for record in notes.records], [400])

    def test_reserve_is_full(self) -> None:
        """Above the reserve the oldest connection without a complete head gives way: none of many idle ones keeps a
        health check out, and the number that is being answered is bounded too."""
        hop = OneHop(connections=1, route=pages_and_tunnels)
        first = hop.client()
        idle = [hop.client() for _ in range(SIZE + 300)]
        self.assertFalse(idle[300].disconnecting)
        self.assertTrue(all(wire.disconnecting for wire in idle[:300]))
        self.assertEqual(sum(wire.aborted for wire in idle), 300 - 256)
        self.assertTrue(idle[299].take().startswith(b"HTTP/1.1 503 "))
        live = hop.client()
        live.receive(LIVE)
        self.assertTrue(live.take().startswith(b"HTTP/1.1 200 OK"))
        first.receive(CONNECT)
        self.assertEqual(first.take(), b"", "its place is its own")

    def test_reserve_that_answers(self) -> None:
        """Clients that do not read their pages hold the reserve for seconds, not for minutes."""
        hop = OneHop(connections=1, route=pages_and_tunnels)
        hop.client()
        reading = [hop.client() for _ in range(SIZE)]
        for wire in reading:
            wire.protocol.dataReceived(LIVE)  # What is written does not leave before the test settles the wire.
        late = hop.client()
        self.assertTrue(late.take().startswith(b"HTTP/1.1 503 "))
        hop.pass_time(5.2)
        self.assertTrue(all(wire.aborted for wire in reading))
        for wire in reading:
            wire.lose()
        live = hop.client()
        live.receive(LIVE)
        self.assertTrue(live.take().startswith(b"HTTP/1.1 200 OK"))

    def test_places_come_back(self) -> None:
        """Whatever ends, its place is free again, and neither the reserve nor those turned away take one."""
        hop = OneHop(connections=2)
        wires = [hop.client() for _ in range(SIZE + 20)]
        for wire in wires:
            wire.lose()
        served = [hop.client(), hop.client()]
        for wire in served:
            wire.receive(GET)
        for wire in served:
            hop.endpoint.accept().receive(OK)
            self.assertTrue(wire.take().startswith(b"HTTP/1.1 200 OK"))
        self.assertEqual(len(hop.factory.connections), 2)

    def test_drain(self) -> None:
        """The drain waits for what the reserve is being answered, and not for the silent part of it."""
        hop = OneHop(connections=1)
        hop.client(), hop.client()
        done = hop.factory.drain(30.0)
        hop.pass_time(0.2)
        for connection in list(hop.factory.connections):
            connection.transport.settle()  # type: ignore[attr-defined]
        self.assertTrue(self.successResultOf(done))

    def test_no_descriptors(self) -> None:
        """What was accepted on a spare descriptor gets pages of our own only, though there are places; what sends no
        head gives its descriptor back after a moment."""
        hop = OneHop(route=pages_and_tunnels)
        hop.factory.spare.fill = lambda: False  # type: ignore[method-assign]
        live, connect, idle = hop.client(), hop.client(), hop.client()
        live.receive(LIVE)
        self.assertTrue(live.take().startswith(b"HTTP/1.1 200 OK"))
        connect.receive(CONNECT)
        self.assert_refused(connect, "no file descriptors left")
        hop.factory.make_way()
        self.assertFalse(idle.disconnecting)
        hop.pass_time(0.15)
        hop.factory.make_way()
        self.assertTrue(idle.disconnecting)

    def test_peer(self) -> None:
        """A peer that may not use the listener gets no protocol: its connection is closed unread (S17)."""
        hop = OneHop()
        settings = ListenerSettings(accepts=lambda address: False)
        factory = DownstreamFactory("nitroproxy-test", hop, settings, Deadlines(hop.clock))
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4321)))


class SettingsTests(SynchronousTestCase):
    """Settings that are replaced while connections are open: they hold from the next request on (K7)."""

    LONG = b"GET /thing HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\n\r\n" % (b"x" * 3000)

    def setUp(self) -> None:
        self.hop = OneHop()
        self.client = self.hop.client()

    def replace(self, header_bytes: int) -> None:
        settings = self.hop.factory.settings
        limits = replace(settings.limits, header_bytes=header_bytes)
        self.hop.factory.settings = replace(settings, limits=limits, header_timeout=3.0, buffer_bytes=8192)

    def status(self) -> bytes:
        return self.client.take().split(b" ")[1]

    def served(self) -> None:
        if self.hop.endpoint.waiting:
            self.upstream = self.hop.endpoint.accept()
        self.upstream.receive(OK)
        self.assertEqual(self.status(), b"200")

    def test_before_the_first_request(self) -> None:
        """A connection that has not sent anything has the new limits, stricter or laxer."""
        self.replace(1024)
        self.client.receive(self.LONG)
        self.assertEqual(self.status(), b"431")

    def test_between_requests(self) -> None:
        """So has one that is kept alive."""
        self.client.receive(self.LONG)
        self.served()
        self.replace(1024)
        self.client.receive(self.LONG)
        self.assertEqual(self.status(), b"431")

    def test_laxer(self) -> None:
        """What was too long before is served then."""
        self.replace(1024)
        client = self.client = self.hop.client()
        client.receive(GET)
        self.served()
        self.replace(65536)
        client.receive(self.LONG)
        self.served()

    def test_pipelined(self) -> None:
        """A request that waits behind another has those that are in force when its turn comes."""
        self.client.receive(GET + self.LONG)
        upstream = self.hop.endpoint.accept()
        self.replace(1024)
        upstream.receive(OK)
        answers = self.client.take()
        self.assertEqual([b"HTTP/1.1 %b " % code in answers for code in (b"200", b"431")], [True, True])

    def test_request_under_way(self) -> None:
        """A head that has begun keeps the limits that it began with."""
        self.client.receive(self.LONG[:100])
        self.replace(1024)
        self.client.receive(self.LONG[100:])
        self.served()

    def test_header_timeout(self) -> None:
        """The time for a head, too."""
        self.replace(65536)
        self.client.receive(GET[:5])
        self.hop.pass_time(3.1)
        self.assertEqual(self.status(), b"408")

    def test_buffer(self) -> None:
        """And what a connection holds for a slow reader."""
        self.replace(65536)
        self.client.receive(GET)
        self.served()
        transport: Any = self.client
        self.assertEqual(transport.bufferSize, 4096)


class RecordTests(SynchronousTestCase):
    """Every exchange ends in exactly one record, however it ends."""

    def setUp(self) -> None:
        self.notes = Notes()
        self.hop = OneHop()
        self.hop.factory.observer = self.notes
        self.client = self.hop.client()

    def record(self) -> Record:
        [record] = self.notes.records
        return record

    def ask(self) -> Wire:
        self.client.receive(b"POST /thing?secret HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        return self.hop.endpoint.accept()

    def test_answered(self) -> None:
        """Method, status and the bytes of both bodies; nothing of the target but the destination."""
        self.ask().receive(OK)
        record = self.record()
        self.assertEqual((record.method, record.status, record.received, record.sent), (b"POST", 200, 3, 2))
        self.assertEqual((record.error, record.client_gone, record.opened_by), (None, False, record.request_id))
        self.assertFalse(any("secret" in str(getattr(record, name)) for name in dir(record) if name[0] != "_"))

    def test_refused(self) -> None:
        """A head that is none has a record too."""
        self.client.receive(b"nonsense\r\n\r\n")
        self.assertEqual((self.record().status, self.record().error), (400, Kind.MALFORMED_REQUEST))

    def test_broken_off(self) -> None:
        """A response that breaks off keeps its status and says why."""
        upstream = self.ask()
        upstream.receive(OK[:-1])
        upstream.lose()
        self.assertEqual((self.record().status, self.record().error), (200, Kind.HTTP_RESPONSE_INCOMPLETE))
        self.client.settle()
        self.assertEqual(len(self.notes.records), 1)

    def test_client_that_stops_reading(self) -> None:
        """A client that stops reading its response counts as gone; the response has not failed."""
        upstream = self.ask()
        upstream.receive(OK[:-1])
        assert self.client.producer is not None
        self.client.producer.pauseProducing()
        self.hop.pass_time(60.2)
        self.assertTrue(self.client.aborted)
        self.client.settle()
        self.assertEqual((self.record().status, self.record().error, self.record().client_gone), (200, None, True))
        self.assertTrue(upstream.aborted)

    def test_client_gone(self) -> None:
        """A client that leaves early is the client's doing."""
        self.ask()
        self.client.lose()
        self.assertEqual((self.record().status, self.record().client_gone), (0, True))
