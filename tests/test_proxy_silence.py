"""How long a tunnel may be silent, what a drain leaves of it, and what its record says of its end:
`nitroproxy.proxy.silence`, through the engine. No sockets."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.policy import ByPattern
from nitroproxy.proxy.record import End
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.proxy.settings import ExchangeSettings
from tests.wire import Notes, OneHop, WaitingEndpoint, Wire

CONNECT = b"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\n\r\n"


class TunnelCase(SynchronousTestCase):
    """One tunnel; idle_timeout is 60 seconds."""

    def begin(self, tunnel_timeout: float = 3600.0, response_timeout: float = 300.0) -> None:
        """Open it."""
        self.destination = WaitingEndpoint()
        exchange = ExchangeSettings(response_timeout=ByPattern({}, response_timeout))
        self.hop = OneHop(self.route, tunnel_timeout=tunnel_timeout, exchange=exchange)
        self.notes = self.hop.factory.observer = Notes()
        self.client = self.hop.client()
        self.client.receive(CONNECT)
        self.server = self.destination.accept()
        self.client.take()

    def setUp(self) -> None:
        self.begin()

    def route(self, request: Request) -> Route:
        return Dial(lambda identity: self.destination)

    def settle(self) -> None:
        """Let the connections end."""
        for wire in (self.client, self.server, self.client):
            wire.settle()

    def lasts(self, seconds: float) -> None:
        """The tunnel stays for *seconds*, and then ends within a second."""
        self.hop.pass_time(seconds - 0.1)
        self.assertFalse(self.client.aborted or self.server.aborted)
        self.hop.pass_time(1.0)
        self.assertTrue(self.client.aborted and self.server.aborted)
        self.settle()

    def end(self) -> End:
        """What ended it, by its one record."""
        [record] = self.notes.records
        return record.ended_by


class SilenceTests(TunnelCase):
    """A tunnel in which nothing moves."""

    def test_tunnel_timeout(self) -> None:
        """A silent tunnel, a CONNECT's or a WebSocket's, stays for tunnel_timeout; each byte begins the time again."""
        self.begin(tunnel_timeout=600.0)
        self.hop.pass_time(500)
        self.server.receive(b".")
        self.lasts(600)
        self.assertIs(self.end(), End.TUNNEL_TIMEOUT)

    def test_unanswered(self) -> None:
        """A tunnel whose client sent last may be waiting for a response, and has response_timeout if that is longer."""
        self.begin(tunnel_timeout=100.0, response_timeout=300.0)
        self.client.receive(b"question")
        self.lasts(300)
        self.assertIs(self.end(), End.TUNNEL_TIMEOUT)

    def test_answered(self) -> None:
        """Once it has been answered it has tunnel_timeout again."""
        self.begin(tunnel_timeout=100.0, response_timeout=300.0)
        self.client.receive(b"question")
        self.hop.pass_time(200)
        self.server.receive(b"answer")
        self.lasts(100)

    def test_shorter_response_timeout(self) -> None:
        """A response_timeout that is shorter than tunnel_timeout cuts no tunnel."""
        self.begin(tunnel_timeout=600.0, response_timeout=10.0)
        self.client.receive(b"question")
        self.lasts(600)

    def test_half_closed(self) -> None:
        """A half-closed tunnel keeps the shorter idle_timeout, whichever end has ended its direction."""
        for which in ("client", "server"):
            self.begin()
            self.hop.pass_time(1000)
            getattr(self, which).end()
            self.lasts(60)
            self.assertIs(self.end(), End.IDLE_TIMEOUT, which)

    def test_reader_that_stops(self) -> None:
        """So does one whose bytes an end does not take, and the record says which end."""
        for source, reader, end in (
            ("server", "client", End.CLIENT_STOPPED_READING),
            ("client", "server", End.UPSTREAM_STOPPED_READING),
        ):
            self.begin()
            producer = getattr(self, reader).producer
            getattr(self, source).receive(b"x")
            producer.pauseProducing()
            self.lasts(60)
            self.assertIs(self.end(), end)

    def test_reader_that_resumes(self) -> None:
        """An end that takes bytes again has moved, and the tunnel has tunnel_timeout again."""
        assert self.client.producer is not None
        self.server.receive(b"x")
        self.client.producer.pauseProducing()
        self.hop.pass_time(59)
        self.client.producer.resumeProducing()
        self.lasts(3600)


class DrainTests(TunnelCase):
    """A tunnel while its listener drains."""

    def test_quiet(self) -> None:
        """A tunnel that is quiet for 5 seconds is a connection in reserve and ends; the drain is complete."""
        self.client.receive(b"question")
        self.server.receive(b"answer")
        done = self.hop.factory.drain(30.0)
        self.lasts(5.0)
        self.assertIs(self.end(), End.DRAINED)
        self.assertTrue(self.successResultOf(done))

    def test_waits_for_an_answer(self) -> None:
        """One whose client waits for an answer is under way: it has all of drain_timeout."""
        self.client.receive(b"question")
        done = self.hop.factory.drain(30.0)
        self.hop.pass_time(29)
        self.assertFalse(self.client.aborted)
        self.assertTrue(all(connection.in_use for connection in self.hop.factory.connections))
        self.server.receive(b"answer")
        self.assertEqual(self.client.take(), b"answer")
        self.server.lose(ConnectionDone())
        self.settle()
        self.assertTrue(self.successResultOf(done))

    def test_answered_during_the_drain(self) -> None:
        """When the answer has come it is in reserve after 5 quiet seconds."""
        self.client.receive(b"question")
        self.hop.factory.drain(600.0)
        self.hop.pass_time(20)
        self.server.receive(b"answer")
        self.lasts(5)
        self.assertIs(self.end(), End.DRAINED)

    def test_asked_during_the_drain(self) -> None:
        """A question that comes during the drain still gets its answer."""
        self.hop.factory.drain(600.0)
        self.hop.pass_time(3)
        self.client.receive(b"question")
        self.hop.pass_time(100)
        self.assertFalse(self.client.aborted)
        self.server.receive(b"answer")
        self.lasts(5)

    def test_never_answered(self) -> None:
        """What is still unanswered at the end of drain_timeout is cut off, and the drain says that it was."""
        self.client.receive(b"question")
        done = self.hop.factory.drain(30.0)
        self.hop.pass_time(30.1)
        self.settle()
        self.assertFalse(self.successResultOf(done))
        [record] = self.notes.records
        self.assertEqual((record.error, record.ended_by), (Kind.DRAINING, End.FAILED))

    def test_session_tickets(self) -> None:
        """In a tunnel that carries TLS, session tickets are no answer to the request that came with the handshake's
        end; more bytes than that are, and so is any answer to a later request."""
        for tickets, answer, more, in_reserve in (
            (500, b"", b"", False),
            (500, b"x" * 2000, b"", True),
            (500, b"", b"next", False),
            (500, b"x", b"next", True),
        ):
            self.begin()
            self.client.receive(b"\x16\x03\x01 hello")
            self.server.receive(b"\x16\x03\x03" + b"x" * 3000)
            self.client.receive(b"finished, and the request")
            self.server.receive(b"t" * tickets)
            if more:
                self.client.receive(more)
            if answer:
                self.server.receive(answer)
            self.hop.factory.drain(600.0)
            self.hop.pass_time(20)
            self.assertIs(self.client.aborted, in_reserve)

    def test_slow_reader(self) -> None:
        """Nor is one in reserve whose bytes have not been taken yet."""
        self.server.receive(b"answer")
        assert self.client.producer is not None
        self.client.producer.pauseProducing()
        self.hop.factory.drain(600.0)
        self.hop.pass_time(50)
        self.assertFalse(self.client.aborted)
        self.client.producer.resumeProducing()
        self.lasts(5)

    def test_half_closed_question(self) -> None:
        """A client that has half-closed after its question is still answered."""
        self.client.receive(b"question")
        self.client.end()
        self.hop.factory.drain(600.0)
        self.hop.pass_time(30)
        self.assertFalse(self.client.aborted)
        self.server.receive(b"answer")
        self.assertEqual(self.client.take(), b"answer")


class EndTests(TunnelCase):
    """What the record says."""

    def test_both_half_closed(self) -> None:
        """The end that came first is the one that closed."""
        for first, second, end in (("client", "server", End.CLIENT_CLOSED), ("server", "client", End.UPSTREAM_CLOSED)):
            self.begin()
            getattr(self, first).end()
            getattr(self, second).end()
            self.settle()
            self.assertIs(self.end(), end)

    def test_closed_and_reset(self) -> None:
        """A connection that closes or breaks is named, with how."""
        for which, reason, end in (
            ("client", ConnectionDone(), End.CLIENT_CLOSED),
            ("server", ConnectionDone(), End.UPSTREAM_CLOSED),
            ("client", None, End.CLIENT_RESET),
            ("server", None, End.UPSTREAM_RESET),
        ):
            self.begin()
            wire: Wire = getattr(self, which)
            wire.lose(reason)
            self.hop.pass_time(11)
            self.settle()
            self.assertIs(self.end(), end)

    def test_not_allowed_any_more(self) -> None:
        """A tunnel that a new policy refuses has failed, with that reason."""
        self.hop.tunnel_refusal = ProxyError(Kind.DESTINATION_DENIED, "not any more")
        self.hop.factory.end_refused_tunnels()
        self.settle()
        self.assertIs(self.end(), End.FAILED)
        self.assertIs(self.notes.records[0].error, Kind.DESTINATION_DENIED)
