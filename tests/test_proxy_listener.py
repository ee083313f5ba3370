"""What a listener's connections share: the limit, the drain, who may use it, and what observers are told."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial
from nitroproxy.proxy.settings import ListenerSettings
from tests.wire import GET, Notes, OneHop, WaitingEndpoint, Wire, split_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class LimitTests(SynchronousTestCase):
    """Who is let in."""

    def test_connection_limit(self) -> None:
        """One connection too many is answered 503 with Retry-After and closed (F2)."""
        hop = OneHop(connections=1)
        first, second = hop.client(), hop.client()
        start, headers, _ = split_head(second.take())
        self.assertEqual(start, b"HTTP/1.1 503 Service Unavailable")
        self.assertEqual(headers[b"retry-after"], b"1")
        self.assertEqual(headers[b"connection"], b"close")
        self.assertEqual(first.take(), b"")

    def test_turned_away_take_no_place(self) -> None:
        """Connections that are being turned away are none of those that count; too many of them are just ended."""
        hop = OneHop(connections=1)
        first = hop.client()
        turned_away = [hop.client() for _ in range(300)]
        first.end()
        self.assertTrue(first.closed)
        served = hop.client()
        served.receive(GET)
        hop.endpoint.accept().receive(OK)
        self.assertTrue(served.take().startswith(b"HTTP/1.1 200 OK"))
        self.assertEqual(sum(wire.aborted for wire in turned_away), 300 - 256)

    def test_peer(self) -> None:
        """A peer that may not use the listener gets no protocol: its connection is closed unread (S17)."""
        hop = OneHop()
        settings = ListenerSettings(accepts=lambda address: False)
        factory = DownstreamFactory("nitroproxy-test", hop, settings, Deadlines(hop.clock))
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4321)))


class DrainTests(SynchronousTestCase):
    """Shutting down without losing a request."""

    def test_drain(self) -> None:
        """Idle connections end at once, one with a request after its response."""
        hop = OneHop()
        idle, busy = hop.client(), hop.client()
        busy.receive(GET)
        upstream = hop.endpoint.accept()
        done = hop.factory.drain(30.0)
        self.assertFalse(idle.disconnecting, "a request may be on its way")
        hop.pass_time(0.1)
        idle.settle()
        self.assertTrue(idle.closed)
        self.assertNoResult(done)
        upstream.receive(OK)
        self.assertIn(b"Connection: close", busy.take())
        busy.settle()
        self.assertTrue(self.successResultOf(done))

    def test_drain_timeout(self) -> None:
        """What does not finish in time is aborted, and the outcome says so; it is not put down to the client."""
        hop = OneHop()
        notes = hop.factory.observer = Notes()
        busy = hop.client()
        busy.receive(GET)
        hop.endpoint.accept()
        done = hop.factory.drain(1.0)
        hop.pass_time(1.1)
        self.assertFalse(self.successResultOf(done))
        self.assertTrue(busy.aborted)
        busy.settle()
        [record] = notes.records
        self.assertEqual((record.error, record.client_gone, record.status), (Kind.DRAINING, False, 0))

    def test_abort(self) -> None:
        """What is aborted before the time is over is told of likewise, whether the drain has begun or not."""
        for drains_before in (True, False):
            hop = OneHop()
            notes = hop.factory.observer = Notes()
            idle, busy = hop.client(), hop.client()
            busy.receive(GET)
            upstream = hop.endpoint.accept()
            done = hop.factory.drain(30.0) if drains_before else None
            hop.factory.abort()
            self.assertTrue(idle.aborted and busy.aborted and upstream.aborted)
            idle.settle()
            busy.settle()
            self.assertFalse(self.successResultOf(done or hop.factory.drain(30.0)))
            self.assertEqual([(record.error, record.client_gone) for record in notes.records], [(Kind.DRAINING, False)])

    def test_abort_of_what_nobody_uses(self) -> None:
        """Aborting what is idle, or a tunnel in reserve, breaks nothing off; a tunnel in use is broken off."""
        for quiet, complete in ((6.0, True), (4.0, False)):
            destination = WaitingEndpoint()
            hop = OneHop(lambda request, destination=destination: Dial(lambda identity: destination))  # type: ignore[misc]
            idle, tunnelled = hop.client(), hop.client()
            tunnelled.receive(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
            upstream = destination.accept()
            hop.pass_time(quiet)
            done = hop.factory.drain(30.0)
            hop.factory.abort()
            for wire in (idle, tunnelled, upstream):
                self.assertTrue(wire.aborted)
                wire.settle()
            self.assertEqual(self.successResultOf(done), complete)


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
        self.assertFalse(any("secret" in str(getattr(record, name)) for name in Record.__slots__))

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
        """A client that reads no more of its response is the client's doing too; nobody says that the response
        stopped."""
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
