"""The name server: `nitroproxy.transparent.dns_server`."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import binary
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.transparent.answers import Answer, Code, Outcome
from nitroproxy.transparent.dns_server import NameServer, Reports, _Streams, respond

reactor: Any = global_reactor

ADDRESS = b"\xc6\x13\0\5"


def query(name: bytes = b"a.example", kind: int = 1, **more: Any) -> bytes:
    """A query, made by twisted.names."""
    message = dns.Message(id=0x1234, recDes=1, **more)
    message.addQuery(name, kind)
    return bytes(message.toStr())


def answered(name: bytes, kind: int) -> Answer:
    """Every A is there; names that begin with "no" do not exist."""
    if name.startswith(b"no"):
        return Answer(Code.NXDOMAIN, Outcome.DENIED, detail="no rule")
    return Answer(Code.NOERROR, Outcome.ANSWERED, ADDRESS if kind == 1 else b"")


class RespondTests(SynchronousTestCase):
    """From bytes to bytes, read again by twisted.names."""

    def setUp(self) -> None:
        self.seen: list[tuple[int, bytes, Outcome]] = []

    def respond(self, data: bytes) -> dns.Message | None:
        """The response, read."""
        response = respond(data, answered, lambda kind, name, answer: self.seen.append((kind, name, answer.outcome)))
        if response is None:
            return None
        self.assertLessEqual(len(response), 512)
        message = dns.Message()
        message.fromStr(response)
        self.assertEqual(message.answer, 1)
        return message

    def test_address(self) -> None:
        """An address, for 60 seconds, with the question as it was asked, in its own case."""
        message = self.respond(query(b"A.eXample"))
        assert message is not None
        self.assertEqual((message.id, message.rCode, message.recDes, message.recAv), (0x1234, 0, 1, 1))
        self.assertEqual(message.queries[0].name.name, b"A.eXample")
        [record] = message.answers
        self.assertEqual((record.name.name, record.type, record.ttl), (b"A.eXample", 1, 60))
        payload: Any = record.payload
        self.assertEqual(payload.address, ADDRESS)
        self.assertEqual(self.seen, [(1, b"A.eXample", Outcome.ANSWERED)])

    def test_nothing(self) -> None:
        """No address and no such name, each with the question and nothing else: no OPT either."""
        data = bytearray(query(b"none.example"))
        data[11] = 1  # One additional record: OPT, as Go and others send it (RFC 6891).
        for name, code in ((b"none.example", 3), (b"a.example", 0)):
            data = bytearray(query(name, 65))
            data[11] = 1
            message = self.respond(bytes(data) + b"\0\0\x29\x04\xd0\0\0\0\0\0\0")
            assert message is not None
            self.assertEqual((message.rCode, message.answers, message.additional), (code, [], []))
            self.assertEqual(len(message.queries), 1)

    def test_longest_name(self) -> None:
        """The longest name fits."""
        name = b".".join([b"x" * 63] * 3 + [b"y" * 61])
        message = self.respond(query(name))
        assert message is not None
        self.assertEqual(message.answers[0].name.name, name)

    def test_other_messages(self) -> None:
        """What is no such query gets a code, or nothing: a response, another opcode or class, no or two questions."""
        two = dns.Message(id=1)
        two.addQuery(b"a.example")
        two.addQuery(b"b.example")
        chaos = dns.Message(id=1)
        chaos.addQuery(b"version.bind", 16, dns.CH)
        for data, code in (
            (query(answer=1), None),
            (b"", None),
            (query()[:11], None),
            (query(opCode=2), 4),
            (two.toStr(), 1),
            (query()[:12], 1),
            (chaos.toStr(), 5),
            (struct.pack("!6H", 7, 0, 0, 0, 0, 0), 1),
            (query()[:-1], 1),
            (query()[:12] + b"\xc0\x0c\0\1\0\1", 1),
        ):
            message = self.respond(data)
            self.assertEqual(None if message is None else message.rCode, code, data)
        self.assertEqual({outcome for _, _, outcome in self.seen}, {Outcome.MALFORMED})

    @settings(max_examples=300, deadline=None)
    @given(binary(max_size=80))
    def test_any_bytes(self, data: bytes) -> None:
        """No bytes raise, alone or after a header that says that there is a question."""
        header = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
        for message in (data, header + data):
            response = respond(message, answered, lambda kind, name, answer: None)
            if response is not None:
                self.assertEqual(response[:2], message[:2])


class ReportsTests(SynchronousTestCase):
    """What is logged."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reports = Reports(self.clock.seconds)
        self.events: list[Any] = []
        observe: Any = self.events.append
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_once(self) -> None:
        """Each name's reason is logged once; an answer without a reason is not."""
        denied = Answer(Code.NXDOMAIN, Outcome.DENIED, detail="no rule")
        for _ in range(3):
            self.reports(b"bad\n.example", denied)
        self.reports(b"good.example", Answer(Code.NOERROR, Outcome.ANSWERED, ADDRESS))
        [event] = self.events
        self.assertEqual(
            (event["event"], event["name"], event["reason"]), ("name_refused", "bad\\n.example", "no rule")
        )
        self.reports(b"x.example", Answer(Code.SERVFAIL, Outcome.NO_MORE_NUMBERS, detail="full"))
        self.assertEqual(self.events[-1]["event"], "name_failed")

    def test_not_too_many(self) -> None:
        """Ten lines a second at most, whatever an application asks."""
        denied = Answer(Code.NXDOMAIN, Outcome.DENIED, detail="no rule")
        for number in range(5000):
            self.reports(b"%d.example" % number, denied)
        self.assertEqual(len(self.events), 10)
        self.clock.advance(1)
        self.reports(b"6000.example", denied)
        self.assertEqual(len(self.events), 11)


class StreamTests(SynchronousTestCase):
    """Queries over TCP."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.streams = _Streams(answered, lambda kind, name, answer: None, Deadlines(self.clock))

    def connect(self) -> Any:
        """A connection's transport."""
        stream = self.streams.buildProtocol(None)
        transport = StringTransport()
        transport.stream = stream  # type: ignore[attr-defined]
        transport.abortConnection = lambda: stream.connectionLost(Failure(connectionDone.value))  # type: ignore[method-assign]
        stream.makeConnection(transport)
        return transport

    def test_pieces(self) -> None:
        """Queries that come byte by byte, and two at once, are answered one by one; a bad one is no reason to end."""
        transport = self.connect()
        framed = struct.pack("!H", len(query())) + query()
        for data in [bytes([byte]) for byte in framed] + [framed + b"\0\1x" + framed]:
            transport.stream.dataReceived(data)
        data = transport.value()
        (length,) = struct.unpack_from("!H", data)
        self.assertEqual(len(data), 3 * (length + 2))

    def test_slow_reader(self) -> None:
        """While responses wait to be read no more queries are: the transport paces itself."""
        transport = self.connect()
        self.assertIs(transport.producer, transport)

    def test_idle(self) -> None:
        """A connection that asks nothing for ten seconds ends; a question extends it."""
        transport = self.connect()
        framed = struct.pack("!H", len(query())) + query()
        for _ in range(3):
            for _ in range(160):
                self.clock.advance(0.05)
            transport.stream.dataReceived(framed)
        self.assertEqual(len(self.streams.connections), 1)
        for _ in range(202):
            self.clock.advance(0.05)
        self.assertEqual(len(self.streams.connections), 0)

    def test_too_many(self) -> None:
        """Of too many connections the oldest end."""
        first = self.connect()
        for _ in range(64):
            self.connect()
        self.assertEqual(len(self.streams.connections), 64)
        self.assertNotIn(first.stream, self.streams.connections)

    def test_too_many_at_once(self) -> None:
        """However many come before the first that is ended has gone, as in one turn of the reactor."""
        ended: list[Any] = []
        for _ in range(100):
            transport = self.connect()
            transport.abortConnection = lambda stream=transport.stream: ended.append(stream)
        self.assertEqual((len(self.streams.connections), len(ended), len(set(ended))), (64, 36, 36))


class _Client(DatagramProtocol):
    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See `DatagramProtocol`."""
        self.received.callback(datagram)


class _StreamClient(Protocol):
    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received.callback(data)


class NameServerTests(TestCase):
    """On real sockets that another has opened."""

    timeout = 20

    async def test_serves(self) -> None:
        """Both are answered; when it has stopped, what is asked waits in the sockets, for the next daemon."""
        with contextlib.ExitStack() as stack:
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            udp.bind(("127.0.0.1", 0))
            await self.serve(udp, tcp)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.sendto(query(), udp.getsockname())
            await self.serve(udp, tcp)

    async def serve(self, udp: socket.socket, tcp: socket.socket) -> None:
        """One daemon's life."""
        deadlines = Deadlines(reactor)
        server = NameServer(reactor, udp.fileno(), tcp.fileno(), answered, lambda *told: None, deadlines)
        self.assertFalse(server.accepting)
        server.listen()
        self.assertTrue(server.accepting)
        self.assertEqual(server.name, f"DNS 127.0.0.1:{udp.getsockname()[1]}")
        client = _Client()
        port = reactor.listenUDP(0, client, interface="127.0.0.1")
        client.transport.write(query(), udp.getsockname())  # type: ignore[union-attr]
        self.assertIn(ADDRESS, await client.received)
        await port.stopListening()
        stream = _StreamClient()
        await connectProtocol(TCP4ClientEndpoint(reactor, *tcp.getsockname()), stream)
        stream.transport.write(struct.pack("!H", len(query())) + query())  # type: ignore[union-attr]
        self.assertIn(ADDRESS, await stream.received)
        self.assertEqual(server.connections, 1)
        self.assertTrue(await server.stop(1))
        self.assertFalse(server.accepting)
        deadlines.stop()
