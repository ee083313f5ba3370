"""Connections to the next hop and their pool: `nitroproxy.proxy.upstream`."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Response
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.upstream import Pool, UpstreamConnection
from tests.wire import WaitingEndpoint, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok"


class Receiver:
    """Remembers what it receives."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def response_interim(self, response: Response) -> None:
        """A 1xx."""
        self.seen.append(response.status)

    def response_head(self, response: Response, data: bytes, last: bool) -> None:
        """The head, and what has come of the body."""
        self.seen.append(response.status)
        if data:
            self.seen.append(data)

    def response_data(self, data: bytes, last: bool) -> None:
        """A piece of the body."""
        self.seen.append(data)

    def response_end(self, reusable: bool) -> None:
        """The end."""
        self.seen.append(reusable)

    def response_upgrade(self, response: Response, rest: bytes) -> None:
        """101."""
        self.seen.append((101, rest))

    def response_failed(self, error: ProxyError) -> None:
        """The failure."""
        self.seen.append(error.kind)


class PoolCase(SynchronousTestCase):
    """A pool on a clock that the test turns."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = WaitingEndpoint()
        self.identities: list[Headers] = []
        self.make(PoolSettings(most=3, most_idle=2))

    def make(self, settings: PoolSettings) -> None:
        """Begin with another pool."""

        def endpoint_for(key: Hashable, identity: Headers) -> IStreamClientEndpoint:
            self.identities.append(identity)
            return self.endpoint

        self.pool = Pool(endpoint_for, Deadlines(self.clock), settings, end_is_proof=lambda key: key == "proof")

    def connect(self, key: str = "a") -> tuple[UpstreamConnection, Wire]:
        """A new connection that is up."""
        connecting = self.pool.connect(key, [(b"X-Request-Id", b"an-id")])
        wire = self.endpoint.accept()
        return self.successResultOf(connecting), wire

    def exchange(self, connection: UpstreamConnection, wire: Wire, more: bytes = b"") -> Receiver:
        """Let a response come, and give the connection back."""
        receiver = Receiver()
        connection.begin(receiver, b"GET")
        wire.receive(OK % more)
        self.pool.release(connection)
        return receiver

    def pass_time(self, seconds: float) -> None:
        """Turn the clock."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


class ConnectTests(PoolCase):
    """New connections."""

    def test_opened_by(self) -> None:
        """A connection knows for which request it was made, and so does its endpoint."""
        connection, _ = self.connect()
        self.assertEqual(connection.opened_by, b"an-id")
        self.assertEqual(self.identities, [[(b"X-Request-Id", b"an-id")]])

    def test_cap(self) -> None:
        """At the cap an idle connection gives way; when none is idle, the request is refused."""
        (connection, wire), *_ = self.connect("a"), self.connect("b"), self.connect("c")
        refused = self.pool.connect("d", [])
        self.assertIs(self.failureResultOf(refused, ProxyError).value.kind, Kind.CONNECTION_LIMIT_REACHED)
        self.pool.release(connection)
        connecting = self.pool.connect("d", [])
        self.assertTrue(wire.aborted)
        wire.settle()
        self.endpoint.accept()
        self.successResultOf(connecting)
        self.assertEqual(self.pool.open, 3)

    def test_timeout(self) -> None:
        """An attempt that takes too long is cancelled, and its place is free again."""
        connecting = self.pool.connect("a", [])
        self.assertEqual(self.pool.open, 1)
        self.pass_time(10.1)
        self.assertIs(self.failureResultOf(connecting, ProxyError).value.kind, Kind.CONNECTION_TIMEOUT)
        self.assertEqual((self.endpoint.cancelled, self.pool.open), (1, 0))

    def test_cancelled(self) -> None:
        """So is one that its exchange gives up."""
        connecting: Deferred[UpstreamConnection] = self.pool.connect("a", [])
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual((self.endpoint.cancelled, self.pool.open), (1, 0))
        self.pass_time(11)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdleTests(PoolCase):
    """Connections between exchanges."""

    def test_last_first(self) -> None:
        """The connection that was used last is used next; one of another key never is."""
        (first, _), (second, _) = self.connect(), self.connect()
        self.pool.release(first)
        self.pool.release(second)
        self.assertIsNone(self.pool.take_idle("b"))
        self.assertIs(self.pool.take_idle("a"), second)
        self.assertIs(self.pool.take_idle("a"), first)
        self.assertIsNone(self.pool.take_idle("a"))
        self.assertEqual(self.pool.idle, 0)

    def test_most_idle(self) -> None:
        """Of too many for one key the oldest ends."""
        wires = []
        connections = [self.connect() for _ in range(3)]
        for connection, wire in connections:
            self.pool.release(connection)
            wires.append(wire)
        self.assertEqual([wire.disconnecting for wire in wires], [True, False, False])
        self.assertEqual(self.pool.idle, 2)

    def test_idle_timeout(self) -> None:
        """An idle connection ends after idle_timeout, counted from its last exchange."""
        connection, wire = self.connect()
        self.exchange(connection, wire)
        self.pass_time(20)
        self.assertIs(self.pool.take_idle("a"), connection)
        self.exchange(connection, wire)
        self.pass_time(29)
        self.assertFalse(wire.disconnecting)
        self.pass_time(1.2)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.pool.idle, 0)
        wire.settle()
        self.pass_time(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keep_alive_timeout(self) -> None:
        """A next hop that keeps idle connections for less, and says so, is asked on one for a second less than that."""
        for field in (b"timeout=5", b"max=100, timeout=5", b"Timeout = 5 , max=3", b'timeout="5"', b"timeout=5;x=y"):
            self.setUp()
            connection, wire = self.connect()
            self.exchange(connection, wire, b"Keep-Alive: " + field + b"\r\n")
            self.pass_time(3.9)
            self.assertIs(self.pool.take_idle("a"), connection, field)
            self.exchange(connection, wire)
            self.pass_time(4.1)
            self.assertTrue(wire.disconnecting, field)
            self.assertIsNone(self.pool.take_idle("a"))

    def test_keep_alive_of_nothing(self) -> None:
        """A connection that would be closed at once is not kept; a field that says nothing of use changes nothing."""
        for field, kept in (
            (b"timeout=0", False),
            (b"timeout=1", False),
            (b"timeout=0\r\nKeep-Alive: timeout=100", False),
            (b"timeout=2", True),
            (b"timeout=99999999999999999999", True),
            (b"max=1", True),
            (b"timeout", True),
            (b"timeout=x", True),
            (b"timeout=-1", True),
            (b"notimeout=0", True),
        ):
            self.setUp()
            connection, wire = self.connect()
            self.exchange(connection, wire, b"Keep-Alive: " + field + b"\r\n")
            self.assertIs(wire.disconnecting, not kept, field)
            self.pass_time(0.9)
            self.assertIs(self.pool.take_idle("a"), connection if kept else None, field)

    def test_keep_alive_is_no_extension(self) -> None:
        """A next hop that offers more than idle_timeout is not taken up on it."""
        connection, wire = self.connect()
        self.exchange(connection, wire, b"Keep-Alive: timeout=1000\r\n")
        self.pass_time(30.1)
        self.assertTrue(wire.disconnecting)

    def test_keep_alive_of_some(self) -> None:
        """Short and long ones lie beside each other: each ends in its own time."""
        (short, near), (long, far) = self.connect(), self.connect()
        self.exchange(long, far)
        self.exchange(short, near, b"Keep-Alive: timeout=5\r\n")
        self.pass_time(4.1)
        self.assertEqual((near.disconnecting, far.disconnecting), (True, False))
        self.assertIs(self.pool.take_idle("a"), long)

    def test_late_sweep(self) -> None:
        """A connection whose time is over is not handed out, even when the clock has not got to ending it."""
        connection, wire = self.connect()
        self.exchange(connection, wire, b"Keep-Alive: timeout=5\r\n")
        self.clock.rightNow += 4.5  # A reactor that has been busy: the time has passed, its calls are still to come.
        self.assertIsNone(self.pool.take_idle("a"))
        self.assertTrue(wire.disconnecting)

    def test_close_idle(self) -> None:
        """What is idle is ended; what is in use goes to the pool afterwards, as always."""
        connection, wire = self.connect()
        self.exchange(connection, wire)
        other, busy = self.connect()
        self.pool.close_idle()
        self.assertEqual((wire.disconnecting, busy.disconnecting), (True, False))
        self.exchange(other, busy)
        self.assertIs(self.pool.take_idle("a"), other)

    def test_retire(self) -> None:
        """A pool that is retired ends what is idle now, and what is in use afterwards."""
        (idle, idle_wire), (busy, busy_wire) = self.connect(), self.connect()
        self.pool.release(idle)
        self.pool.retire()
        self.assertEqual((idle_wire.disconnecting, busy_wire.disconnecting), (True, False))
        self.pool.release(busy)
        self.assertTrue(busy_wire.disconnecting)


class ReceiveTests(PoolCase):
    """What a connection makes of what it reads."""

    def receive(self, *pieces: bytes, key: str = "a", method: bytes = b"GET") -> tuple[Receiver, Wire]:
        connection, wire = self.connect(key)
        receiver = Receiver()
        connection.begin(receiver, method)
        for piece in pieces:
            wire.receive(piece)
        return receiver, wire

    def test_response(self) -> None:
        """Interim heads, the head, the body, the end, in this order and whatever the pieces."""
        whole = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK % b""
        receiver, _ = self.receive(whole)
        self.assertEqual(receiver.seen, [103, 200, b"ok", True])
        receiver, _ = self.receive(*[bytes([byte]) for byte in whole])
        self.assertEqual(receiver.seen, [103, 200, b"o", b"k", True])

    def test_not_reusable(self) -> None:
        """A connection that the next hop closes, or that says more than it was asked, is not for another exchange."""
        for answer in (OK % b"Connection: close\r\n", OK % b"" + b"x"):
            self.assertIs(self.receive(answer)[0].seen[-1], False)
            self.make(PoolSettings())

    def test_until_close(self) -> None:
        """A body that ends with the connection is complete where the end is proof, and only after a clean one."""
        head = b"HTTP/1.1 200 OK\r\n\r\nhalf"
        receiver, _ = self.receive(head)
        self.assertEqual(receiver.seen, [Kind.HTTP_PROTOCOL_ERROR])
        receiver, wire = self.receive(head, key="proof")
        wire.lose(ConnectionDone())
        self.assertEqual(receiver.seen, [200, b"half", b"", False])
        receiver, wire = self.receive(head, key="proof")
        wire.lose()
        self.assertEqual(receiver.seen, [200, b"half", Kind.HTTP_RESPONSE_INCOMPLETE])

    def test_switch(self) -> None:
        """A 101 hands over what came after it."""
        receiver, _ = self.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nbytes")
        self.assertEqual(receiver.seen, [(101, b"bytes")])

    def test_lost(self) -> None:
        """A connection that ends before the head has terminated; the place is free."""
        receiver, wire = self.receive()
        wire.lose()
        self.assertEqual(receiver.seen, [Kind.CONNECTION_TERMINATED])
        self.assertEqual(self.pool.open, 0)

    def test_forgotten(self) -> None:
        """After `forget` the receiver hears nothing more."""
        connection, wire = self.connect()
        receiver = Receiver()
        connection.begin(receiver, b"GET")
        connection.forget()
        self.assertTrue(wire.aborted)
        wire.settle()
        self.assertEqual((receiver.seen, self.pool.open), ([], 0))
