"""Whether a peer has left for good: real sockets on loopback, UNIX and TCP."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from time import process_time
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.sockets.hangup import SocketTable, has_hung_up, next_read, probe


class Transport:
    """The parts of a connection that the functions use."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket: socket.socket | None = end
        self._peer, self._host = end.getpeername(), end.getsockname()
        self._kind: Any = {socket.AF_INET: IPv4Address, socket.AF_INET6: IPv6Address}.get(end.family)

    def getPeer(self) -> Any:
        """The other end's address."""
        return self._kind("TCP", *self._peer[:2]) if self._kind else UNIXAddress(b"")

    def getHost(self) -> Any:
        """This end's address."""
        return self._kind("TCP", *self._host[:2]) if self._kind else UNIXAddress(b"")


class Wrapped:
    """A connection with TLS: the socket is the inner transport's."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.getPeer, self.getHost = transport.getPeer, transport.getHost


class HangupTests(SynchronousTestCase):
    """The kernel's information about a peer."""

    def pair(self, family: str) -> tuple[Transport, socket.socket]:
        """Two connected ends: a transport, and its peer."""
        if family == "unix":
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                theirs = socket.create_connection(listening.getsockname())
                ours = listening.accept()[0]
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return Transport(ours), theirs

    def test_there(self) -> None:
        """A peer that is there has not hung up, nor has one that only ended its direction, nor one with unread data."""
        for family in ("unix", "tcp"):
            transport, peer = self.pair(family)
            self.assertFalse(has_hung_up(transport), family)
            peer.send(b"x")
            self.assertFalse(has_hung_up(Wrapped(transport)), family)
            peer.shutdown(socket.SHUT_WR)
            self.assertFalse(has_hung_up(transport), family)

    def test_own_half_close(self) -> None:
        """That this end has ended its direction says nothing about the peer."""
        for family in ("unix", "tcp"):
            transport, _ = self.pair(family)
            assert transport.socket is not None
            transport.socket.shutdown(socket.SHUT_WR)
            self.assertFalse(has_hung_up(transport, half_closed=True), family)

    def test_unix_close(self) -> None:
        """A UNIX peer that has closed has hung up, even while its last data is unread."""
        transport, peer = self.pair("unix")
        peer.send(b"x")
        peer.close()
        self.assertTrue(has_hung_up(transport))
        self.assertTrue(has_hung_up(Wrapped(transport)))
        self.assertEqual(next_read(transport), b"x")
        assert transport.socket is not None
        transport.socket.recv(1)
        self.assertEqual(next_read(transport), b"")

    def test_reset(self) -> None:
        """A TCP peer that has reset the connection has hung up, and reading would report it."""
        transport, peer = self.pair("tcp")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        self.assertTrue(has_hung_up(transport))
        self.assertIsNone(next_read(transport))

    def test_nothing_waits(self) -> None:
        """When nothing has arrived, next_read says so."""
        transport, _ = self.pair("tcp")
        self.assertRaises(BlockingIOError, next_read, transport)

    def test_closed_here(self) -> None:
        """A connection that is already closed, or never had a socket, has not hung up: others report its end."""
        transport, _ = self.pair("unix")
        transport.socket = None
        self.assertFalse(has_hung_up(transport))
        self.assertFalse(has_hung_up(object()))

    def test_closed_on_this_machine(self) -> None:
        """A TCP peer of this machine that has closed is told from one that has half-closed, by IPv4 and IPv6."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.create_server((host, 0), family=family) as listening:
                peer = socket.create_connection(listening.getsockname()[:2])
                transport = Transport(listening.accept()[0])
            peer.shutdown(socket.SHUT_WR)
            self.assertFalse(SocketTable().has_closed(transport), host)
            peer.close()
            self.assertFalse(has_hung_up(transport), "nothing else tells")
            self.assertTrue(SocketTable().has_closed(transport), host)
            self.assertTrue(SocketTable().has_closed(Wrapped(transport)), host)
            assert transport.socket is not None
            transport.socket.close()

    def test_not_known_to_have_closed(self) -> None:
        """Without a table, and for connections other than TCP, the answer is no."""
        transport, peer = self.pair("tcp")
        peer.close()
        self.assertFalse(SocketTable(Path(self.mktemp())).has_closed(transport))
        transport, peer = self.pair("unix")
        peer.close()
        self.assertFalse(SocketTable().has_closed(transport))

    def test_many(self) -> None:
        """A look at thousands of connections reads the table once: its length does not count for each of them."""
        transport, _ = self.pair("tcp")
        assert transport.socket is not None
        line = b"%4d: 0100007F:%04X 0100007F:0001 08 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n"
        proc = Path(self.mktemp())
        proc.mkdir()
        (proc / "tcp").write_bytes(b"".join(line % (number, number) for number in range(20000)))
        sockets = SocketTable(proc)
        began = process_time()
        self.assertEqual(sum(sockets.has_closed(transport) for _ in range(4000)), 0)
        self.assertLess(process_time() - began, 1.0)

    def test_probe(self) -> None:
        """A TCP peer that has half-closed is probed; a UNIX peer is left alone."""
        transport, peer = self.pair("tcp")
        peer.shutdown(socket.SHUT_WR)
        probe(transport)
        assert transport.socket is not None
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        self.assertEqual([transport.socket.getsockopt(socket.IPPROTO_TCP, option) for option in options], [5, 5, 4])
        self.assertTrue(transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        probe(self.pair("unix")[0])
