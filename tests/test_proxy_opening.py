"""Connections that have a destination before they have said anything. No sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.preface.proxy_protocol import Header, Peers
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.opening import Passage, PassageReader, passage, peers_of
from nitroproxy.proxy.passage import PassageRouter
from nitroproxy.proxy.record import End
from nitroproxy.proxy.settings import ListenerSettings
from tests.wire import Notes, WaitingEndpoint, Wire

CLIENT = IPv4Address("TCP", "192.0.2.1", 4321)
V1 = b"PROXY TCP4 203.0.113.9 198.51.100.2 999 443\r\n"


class Ingress:
    """A listener that leads to one `WaitingEndpoint`."""

    def __init__(self, *, header: bool = False, sends: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        self.endpoint = WaitingEndpoint()
        self.notes = Notes()
        router = PassageRouter(self.endpoint, ("enclave", 5444), sends_header=sends)
        self.factory = DownstreamFactory(
            "nitroproxy-test",
            router,
            ListenerSettings(**settings),
            Deadlines(self.clock),
            self.notes,
            opening=passage(header=header),
        )

    def client(self, peer: IAddress = CLIENT) -> Wire:
        protocol = self.factory.buildProtocol(peer)
        assert protocol is not None
        return Wire(protocol, peer)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


class PassageTests(SynchronousTestCase):
    """From the first byte."""

    def test_bytes_both_ways(self) -> None:
        """It is dialled at once; nothing is written to the client, what comes early waits, and then all passes."""
        ingress = Ingress()
        client = ingress.client()
        client.receive(b"early ")
        self.assertTrue(client.paused)
        destination = ingress.endpoint.accept()
        client.receive(b"up")
        destination.receive(b"down")
        self.assertEqual((destination.take(), client.take()), (b"early up", b"down"))

    def test_defect(self) -> None:
        """A defect before anything has been read ends the connection, as one while reading does."""
        ingress = Ingress()

        def fail(request: object, record: object) -> Any:
            raise KeyError("defect")

        self.patch(ingress.factory.router, "route", fail)
        self.assertRaises(KeyError, ingress.client)
        [connection] = ingress.factory.connections
        client: Any = connection
        self.assertTrue(client.transport.aborted)
        client.transport.settle()
        self.assertEqual(len(ingress.factory.connections), 0)

    def test_server_first(self) -> None:
        """A destination may be the first to speak."""
        ingress = Ingress()
        client = ingress.client()
        ingress.endpoint.accept().receive(b"220 mail.example ESMTP")
        self.assertEqual(client.take(), b"220 mail.example ESMTP")

    def test_looks_like_http(self) -> None:
        """Nothing is read as a request, whatever it looks like."""
        ingress = Ingress()
        client = ingress.client()
        client.receive(b"GET /health HTTP/1.1\r\n\r\n")
        self.assertEqual(ingress.endpoint.accept().take(), b"GET /health HTTP/1.1\r\n\r\n")
        self.assertEqual(client.take(), b"")

    def test_half_close(self) -> None:
        """A client's end before there is a connection reaches the destination as that."""
        ingress = Ingress()
        client = ingress.client()
        client.receive(b"all")
        client.end()
        destination = ingress.endpoint.accept()
        self.assertEqual(destination.take(), b"all")
        self.assertTrue(destination.half_closed)
        destination.receive(b"answer")
        destination.end()
        self.assertEqual(client.take(), b"answer")

    def test_failure(self) -> None:
        """A destination that cannot be reached resets the client's connection without a byte, and is recorded."""
        ingress = Ingress()
        client = ingress.client()
        ingress.endpoint.refuse(ProxyError(Kind.CONNECTION_REFUSED, "nobody listens"))
        self.assertTrue(client.aborted)
        self.assertEqual(client.take(), b"")
        client.settle()
        [record] = ingress.notes.records
        self.assertEqual((record.method, record.error), (b"TCP", Kind.CONNECTION_REFUSED))
        self.assertEqual((record.host, record.port), ("enclave", 5444))
        self.assertEqual(ingress.factory.connections, set())

    def test_client_leaves(self) -> None:
        """A client that leaves while it is dialled for ends that."""
        ingress = Ingress()
        client = ingress.client()
        client.lose(ConnectionDone())
        self.assertEqual(ingress.endpoint.cancelled, 1)
        [record] = ingress.notes.records
        self.assertIs(record.ended_by, End.CLIENT_GONE)

    def test_connect_timeout(self) -> None:
        """A destination that does not answer in time is given up."""
        ingress = Ingress(connect_timeout=2.0)
        client = ingress.client()
        ingress.pass_time(2.1)
        self.assertTrue(client.aborted)
        self.assertIs(ingress.notes.records[0].error, Kind.CONNECTION_TIMEOUT)

    def test_limit(self) -> None:
        """Above the limit a connection is reset at once: there is no page of ours to serve it."""
        ingress = Ingress(connections=1)
        first = ingress.client(UNIXAddress(b""))
        second = ingress.client(UNIXAddress(b""))
        self.assertFalse(first.aborted)
        self.assertTrue(second.aborted)
        second.settle()
        self.assertEqual(len(ingress.endpoint.waiting), 1)
        self.assertEqual(len(ingress.factory.connections), 1)

    def test_tunnel_timeout(self) -> None:
        """A tunnel in which nothing moves ends."""
        ingress = Ingress(tunnel_timeout=90.0)
        client = ingress.client()
        destination = ingress.endpoint.accept()
        destination.receive(b"hello")
        ingress.pass_time(91.0)
        self.assertTrue(client.aborted and destination.aborted)

    def test_drain(self) -> None:
        """A drain lets a tunnel in use go on and ends a silent one; a new connection is refused."""
        ingress = Ingress()
        client = ingress.client()
        destination = ingress.endpoint.accept()
        done: Deferred[bool] = ingress.factory.drain(30.0)
        self.assertTrue(ingress.client().aborted)
        destination.receive(b"still here")
        ingress.pass_time(4.0)
        self.assertFalse(client.aborted)
        ingress.pass_time(1.5)
        client.settle()
        destination.settle()
        self.assertTrue(self.successResultOf(done))


class HeaderTests(SynchronousTestCase):
    """With the PROXY protocol."""

    def test_sent(self) -> None:
        """The destination learns who the client is before the first byte, and the record's id."""
        ingress = Ingress(sends=True)
        client = ingress.client()
        client.receive(b"early")
        destination = ingress.endpoint.accept()
        own = client.getHost()
        destination.lose()
        ingress.pass_time(0.1)
        client.settle()
        [record] = ingress.notes.records
        header = Header(Peers(("192.0.2.1", 4321), (own.host, own.port)), record.request_id)
        self.assertEqual(destination.take(), header.to_bytes() + b"early")

    def test_accepted(self) -> None:
        """A header is required, byte by byte if need be; it is stripped, and its client is the record's."""
        ingress = Ingress(header=True)
        client = ingress.client()
        for byte in V1:
            self.assertEqual(ingress.endpoint.waiting, [])
            client.receive(bytes([byte]))
        client.receive(b"rest")
        destination = ingress.endpoint.accept()
        self.assertEqual(destination.take(), b"rest")
        client.lose(ConnectionDone())
        destination.settle()
        [record] = ingress.notes.records
        self.assertEqual(record.peer, IPv4Address("TCP", "203.0.113.9", 999))

    def test_both(self) -> None:
        """What a load balancer says is passed on, in version 2, with its id for the connection."""
        ingress = Ingress(header=True, sends=True)
        client = ingress.client()
        given = Header(Peers(("2001:db8::9", 999), ("2001:db8::2", 443)), b"of-the-balancer")
        client.receive(given.to_bytes() + b"rest")
        self.assertEqual(ingress.endpoint.accept().take(), given.to_bytes() + b"rest")

    def test_strange_id(self) -> None:
        """An id with other characters than ours is replaced."""
        ingress = Ingress(header=True, sends=True)
        client = ingress.client()
        client.receive(Header(None, b"\x00\r\n").to_bytes())
        self.assertNotIn(b"\x00\r\n\x00", ingress.endpoint.accept().take()[16:])

    def test_missing(self) -> None:
        """Without a header the connection is reset, and nothing is dialled."""
        ingress = Ingress(header=True)
        client = ingress.client()
        client.receive(b"\x16\x03\x01\x02\x00")
        self.assertTrue(client.aborted)
        self.assertEqual(ingress.endpoint.waiting, [])
        self.assertIs(ingress.notes.records[0].error, Kind.MALFORMED_REQUEST)

    def test_slow(self) -> None:
        """A header that is not complete in time ends the connection, however steadily it comes."""
        ingress = Ingress(header=True, header_timeout=5.0)
        client = ingress.client()
        for byte in V1[:6]:
            client.receive(bytes([byte]))
            ingress.pass_time(1.0)
        self.assertTrue(client.aborted)

    def test_silent(self) -> None:
        """A client that says nothing at all, as a balancer's check that only connects, is closed without a record."""
        ingress = Ingress(header=True, idle_timeout=60.0)
        client = ingress.client()
        client.end()
        client.settle()
        self.assertTrue(client.closed)
        self.assertEqual(ingress.notes.records, [])

    def test_balancer(self) -> None:
        """A balancer's one address may have every place, since it connects for many clients."""
        for proxies, most in ((False, 3), (True, 4)):
            ingress = Ingress(header=True, connections=4, peers_are_proxies=proxies)
            clients = [ingress.client() for _ in range(5)]
            for client in clients:
                client.receive(V1)
            self.assertEqual(sum(not client.aborted for client in clients), most)


class ReaderTests(SynchronousTestCase):
    """The reader alone."""

    def test_once(self) -> None:
        """There is one passage, with the authority it was given."""
        wire: Any = Wire.__new__(Wire)
        wire.getPeer, wire.getHost = lambda: CLIENT, lambda: CLIENT
        reader = PassageReader(wire, b"site.example:443", header=False)
        found = reader.read_head()
        assert isinstance(found, Passage)
        self.assertEqual((found.method, found.target), (b"CONNECT", b"site.example:443"))
        self.assertIsNone(reader.read_head())

    def test_peers(self) -> None:
        """The ends of a TCP connection; of another there are none."""
        wire: Any = Wire.__new__(Wire)
        wire.getPeer, wire.getHost = lambda: CLIENT, lambda: IPv4Address("TCP", "198.51.100.2", 443)
        self.assertEqual(peers_of(wire), Peers(("192.0.2.1", 4321), ("198.51.100.2", 443)))
        wire.getPeer = lambda: UNIXAddress(b"")
        self.assertIsNone(peers_of(wire))
