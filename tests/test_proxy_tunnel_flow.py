"""Tunnels between bare sockets: what is passed on at once, what waits, and that it is every byte in order."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.record import End
from nitroproxy.proxy.settings import TunnelTimes
from nitroproxy.proxy.tunnel import Tunnel, TunnelProtocol

TIMES = TunnelTimes(silent=3600.0, unanswered=3600.0, idle=60.0)


class Socket(FileDescriptor):
    """A bare socket without a kernel: takes as much as the test gives it room for."""

    def __init__(self, protocol: TunnelProtocol) -> None:
        self.watch = MemoryReactor()
        super().__init__(self.watch)
        self.protocol = protocol
        self.connected = 1
        self.room = 1 << 30
        self.taken = bytearray()
        self.broken = False
        self.half_closed = False
        self.aborted = False
        self.startReading()
        protocol.makeConnection(self)

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """What send() would take."""
        if self.broken:
            return CONNECTION_LOST
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def _closeWriteConnection(self) -> None:
        self.half_closed = True

    def loseWriteConnection(self) -> None:
        """Half-close, once all has been sent."""
        self._writeDisconnecting = True
        self.startWriting()

    def abortConnection(self) -> None:
        """Close at once."""
        self.aborted = True

    @property
    def reads(self) -> bool:
        """It is being read from."""
        return self in self.watch.getReaders()

    @property
    def waiting(self) -> int:
        """Bytes that it holds."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def write_ready(self) -> Any:
        """The reactor lets it write, if it wants to."""
        return self.doWrite() if self in self.watch.getWriters() else None


class Pair:
    """Two sockets joined by a tunnel."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.protocols = TunnelProtocol(), TunnelProtocol()
        self.client, self.server = (Socket(protocol) for protocol in self.protocols)
        self.ends: list[End] = []
        self.tunnel = Tunnel(self.client, self.server, Deadlines(self.clock), TIMES, self.on_end)  # type: ignore[arg-type]
        for protocol, side in zip(self.protocols, (self.tunnel.downstream, self.tunnel.upstream), strict=True):
            protocol.join(side)

    def on_end(self, end: End) -> None:
        """Both have gone."""
        self.ends.append(end)

    def pass_on(self) -> None:
        """Let both write."""
        self.client.write_ready()
        self.server.write_ready()


class FlowTests(SynchronousTestCase):
    """The flow of bytes, with sockets that take what the test says."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.client, self.server = self.pair.client, self.pair.server

    def warm(self) -> None:
        """Let a first byte pass each way: from then on each socket is known to hold nothing."""
        self.client.protocol.dataReceived(b"<")
        self.server.protocol.dataReceived(b">")
        self.pair.pass_on()
        self.server.taken.clear()
        self.client.taken.clear()

    def test_at_once(self) -> None:
        """What a socket has room for is sent from within the read, and reading goes on."""
        self.warm()
        self.client.protocol.dataReceived(b"up")
        self.server.protocol.dataReceived(b"down")
        self.assertEqual((bytes(self.server.taken), bytes(self.client.taken)), (b"up", b"down"))
        self.assertEqual(self.server.watch.getWriters() + self.client.watch.getWriters(), [])
        self.assertTrue(self.client.reads and self.server.reads)

    def test_not_before_what_waits(self) -> None:
        """What the connection held before it became a tunnel leaves first."""
        protocol, other = TunnelProtocol(), TunnelProtocol()
        client, server = Socket(protocol), Socket(other)
        client.write(b"200 OK\r\n\r\n")
        tunnel = Tunnel(client, server, Deadlines(Clock()), TIMES, lambda end: None)  # type: ignore[arg-type]
        protocol.join(tunnel.downstream)
        other.join(tunnel.upstream)
        other.dataReceived(b"hello")
        client.write_ready()
        other.dataReceived(b", world")
        self.assertEqual(bytes(client.taken), b"200 OK\r\n\r\nhello, world")

    def test_full(self) -> None:
        """Of what a socket has no room for, no more than the one read is held; reading goes on when it has left."""
        self.warm()
        self.server.room = 5
        self.client.protocol.dataReceived(b"0123456789")
        self.assertEqual((bytes(self.server.taken), self.server.waiting), (b"01234", 5))
        self.assertFalse(self.client.reads)
        self.assertTrue(self.server.reads)
        self.server.room = 2
        self.pair.pass_on()
        self.assertFalse(self.client.reads)
        self.server.room = 100
        self.pair.pass_on()
        self.assertTrue(self.client.reads)
        self.client.protocol.dataReceived(b"abc")
        self.assertEqual(bytes(self.server.taken), b"0123456789abc")

    def test_ended_while_full(self) -> None:
        """A half-close waits until what came before it has left."""
        self.warm()
        self.server.room = 1
        self.client.protocol.dataReceived(b"abc")
        self.client.protocol.readConnectionLost()
        self.assertFalse(self.server.half_closed)
        self.server.room = 10
        self.pair.pass_on()
        self.pair.pass_on()
        self.assertEqual(bytes(self.server.taken), b"abc")
        self.assertTrue(self.server.half_closed)
        self.server.protocol.dataReceived(b"answer")
        self.assertEqual(bytes(self.client.taken), b"answer")

    def test_broken(self) -> None:
        """A socket that has broken says so to the reactor, not to the one that is being read from."""
        self.warm()
        self.server.broken = True
        self.client.protocol.dataReceived(b"abc")
        self.assertFalse(self.client.aborted)
        self.assertIs(self.server.write_ready(), CONNECTION_LOST)
        self.server.connectionLost(Failure(CONNECTION_LOST))
        self.server.protocol.connectionLost(Failure(CONNECTION_LOST))
        self.pair.clock.advance(0.2)
        self.pair.clock.advance(0.2)
        self.assertTrue(self.client.aborted)

    def test_reset_is_no_end(self) -> None:
        """After a reset the other connection is read no more and is aborted, not closed as if all had been said."""
        self.warm()
        self.server.connectionLost(Failure(CONNECTION_LOST))
        self.server.protocol.connectionLost(Failure(CONNECTION_LOST))
        self.assertFalse(self.client.disconnecting)
        self.assertFalse(self.client.reads)
        self.pair.clock.advance(0.2)
        self.assertTrue(self.client.aborted)

    def test_clean_end_while_full(self) -> None:
        """After a clean end the other connection still sends what it holds, then closes."""
        self.warm()
        self.client.room = 0
        self.server.protocol.dataReceived(b"last words")
        self.server.connectionLost(Failure(ConnectionDone()))
        self.server.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.client.write_ready())
        self.client.room = 100
        self.assertIsInstance(self.client.write_ready(), ConnectionDone)
        self.assertEqual(bytes(self.client.taken), b"last words")

    def test_idle_while_full(self) -> None:
        """A reader that takes nothing does not keep its tunnel for longer than idle_timeout."""
        self.warm()
        self.server.room = 0
        self.client.protocol.dataReceived(b"abc")
        for _ in range(62):
            self.pair.clock.advance(1)
        self.assertTrue(self.client.aborted and self.server.aborted)
        for each in (self.client, self.server):
            each.protocol.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(self.pair.ends, [End.UPSTREAM_STOPPED_READING])

    def test_any_sizes(self) -> None:
        """Both ways at once, pieces and room of any size: every byte arrives, in order, and all are counted."""
        for seed in range(200):
            chance = random.Random(seed)
            pair = Pair()
            said = {pair.client: bytearray(), pair.server: bytearray()}
            for each in said:
                each.room = 0
            for _ in range(60):
                speaker = chance.choice([pair.client, pair.server])
                if speaker.reads:
                    piece = chance.randbytes(chance.choice([1, 10, 1000, 65536]))
                    said[speaker] += piece
                    speaker.protocol.dataReceived(piece)
                for each in said:
                    each.room += chance.choice([0, 0, 1, 100, 30000, 100000])
                    if chance.random() < 0.7:
                        each.write_ready()
                    self.assertLessEqual(each.waiting, 65536)
            for each in said:
                each.room = 1 << 30
                each.write_ready()
            self.assertEqual(bytes(pair.server.taken), bytes(said[pair.client]), seed)
            self.assertEqual(bytes(pair.client.taken), bytes(said[pair.server]), seed)
            self.assertEqual(pair.tunnel.downstream.bytes, len(pair.server.taken))
            self.assertEqual(pair.tunnel.upstream.bytes, len(pair.client.taken))
