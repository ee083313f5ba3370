"""Where accepted connections lead: `nitroproxy.transparent.destination`. With a real redirect: `tests.transparent`."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.transparent.destination as module
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.transparent.destination import Destinations, original_destination
from nitroproxy.transparent.names import NameTable
from nitroproxy.transparent.ranges import packed_v4, packed_v6
from tests.wire import Notes, OneHop, WaitingEndpoint, Wire


class FakeSocket:
    """A connection that netfilter has redirected."""

    def __init__(self, address: str, port: int) -> None:
        packed = ip_address(address).packed
        self.family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        place = port.to_bytes(2, "big")
        if len(packed) == 4:
            self.known = (0, 80), b"\2\0" + place + packed + bytes(8)
        else:
            self.known = (41, 80), b"\x0a\0" + place + bytes(4) + packed + bytes(4)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """See `socket.socket`."""
        names, value = self.known
        if (level, option) != names or size != len(value):
            raise OSError(92, "Protocol not available")
        return value


class DestinationTests(SynchronousTestCase):
    """From a connection to host:port."""

    def setUp(self) -> None:
        self.table = NameTable(self.mktemp())
        self.addCleanup(self.table.close)
        self.table.number_of("db.example")
        self.destinations = Destinations(self.table)

    def find(self, address: str, port: int = 443) -> bytes | None:
        """Where a connection to that leads."""
        transport: Any = SimpleNamespace(socket=FakeSocket(address, port))
        return self.destinations.authority_of(transport)

    def refusal(self, address: str) -> Kind:
        """Why it leads nowhere."""
        error: ProxyError = self.assertRaises(ProxyError, self.find, address)
        return error.kind

    def test_names(self) -> None:
        """The address of a name is the name, on the port that was connected to, in both families."""
        for packed in (packed_v4(0), packed_v6(0)):
            self.assertEqual(self.find(str(ip_address(packed)), 5432), b"db.example:5432")

    def test_literals(self) -> None:
        """Every other address is itself."""
        self.assertEqual(self.find("93.184.216.34", 25), b"93.184.216.34:25")
        self.assertEqual(self.find("2606:2800:220:1::1"), b"[2606:2800:220:1::1]:443")
        self.assertEqual(self.find("169.254.169.254", 80), b"169.254.169.254:80")

    def test_unknown(self) -> None:
        """An address of ours that was never given out is refused, be it in the range of names or beside it."""
        for packed in (packed_v4(1), packed_v6(1), packed_v4(65535)):
            self.assertIs(self.refusal(str(ip_address(packed))), Kind.UNKNOWN_NAME)
        for address in ("198.18.0.3", "198.18.255.255", "fd00:6e69:7472:6f::5", "fd00:6e69:7472:6f::c612:1"):
            self.assertIs(self.refusal(address), Kind.UNKNOWN_NAME)

    def test_own(self) -> None:
        """What leads to the proxy itself is refused."""
        for address in ("127.0.0.1", "127.8.8.8", "::1", "198.18.0.1", "fd00:6e69:7472:6f::1"):
            self.assertIs(self.refusal(address), Kind.ADDRESS_DENIED)

    def test_probe(self) -> None:
        """The health check's own connections lead nowhere."""
        self.assertIsNone(self.find("198.18.0.2"))
        self.assertIsNone(self.find("fd00:6e69:7472:6f::2"))

    def test_not_redirected(self) -> None:
        """A connection of which the kernel knows nothing, or that is closed, is refused."""
        with socket.socketpair()[0] as plain:
            for given in (plain, None):
                transport: Any = SimpleNamespace(socket=given)
                error = self.assertRaises(ProxyError, self.destinations.authority_of, transport)
                self.assertIs(error.kind, Kind.ADDRESS_DENIED)

    def test_given_out_later(self) -> None:
        """A name that another process has given an address after this one has read the file is found."""
        with_other = NameTable(self.table_path())
        self.addCleanup(with_other.close)
        with_other.number_of("later.example")
        self.assertEqual(self.find("198.19.0.1"), b"later.example:443")

    def table_path(self) -> str:
        """The file's path, by its descriptor."""
        return str(os.readlink(f"/proc/self/fd/{self.table._descriptor}"))

    def test_file_gone(self) -> None:
        """When the file cannot be read the connection is refused, as our failure."""

        def fails(number: int) -> str:
            raise OSError(5, "Input/output error")

        self.patch(self.table, "name_of", fails)
        self.assertIs(self.refusal("198.19.0.0"), Kind.INTERNAL_ERROR)

    def test_forms(self) -> None:
        """Both families' socket addresses are read by their own sizes."""
        any_socket: Any = FakeSocket("192.0.2.1", 80)
        self.assertEqual(original_destination(any_socket), (b"\xc0\0\2\1", 80))


class OpeningTests(SynchronousTestCase):
    """What the engine makes of a redirected connection."""

    def setUp(self) -> None:
        table = NameTable(self.mktemp())
        self.addCleanup(table.close)
        table.number_of("db.example")
        self.upstream = WaitingEndpoint()
        self.asked: list[bytes] = []
        self.hop = OneHop(self.route)
        self.notes = self.hop.factory.observer = Notes()
        self.hop.factory.opening = Destinations(table).opening

    def route(self, request: Request) -> Route:
        self.asked.append(request.method + b" " + request.target)
        return Dial(lambda identity: self.upstream)

    def client(self, address: str, port: int = 5432) -> Wire:
        """A connection that was meant to go there."""
        self.patch(module, "socket_of", lambda transport: FakeSocket(address, port))
        return self.hop.client()

    def test_tunnel(self) -> None:
        """It is dialled before the client has said a word, so that a server may speak first."""
        client = self.client("198.19.0.0")
        self.assertEqual(self.asked, [b"CONNECT db.example:5432"])
        server = self.upstream.accept()
        server.receive(b"220 hello")
        client.receive(b"EHLO me")
        self.assertEqual((client.take(), server.take()), (b"220 hello", b"EHLO me"))

    def test_unknown_name(self) -> None:
        """An address that was never given out is reset without a byte, and recorded under its reason."""
        client = self.client("198.19.0.9")
        self.assertEqual((client.aborted, client.take(), self.asked), (True, b"", []))
        [record] = self.notes.records
        self.assertEqual((record.error, record.status), (Kind.UNKNOWN_NAME, 403))

    def test_probe(self) -> None:
        """A probe is ended and leaves no record."""
        client = self.client("198.18.0.2", 1)
        client.settle()
        self.assertEqual((client.closed, client.take(), self.asked, self.notes.records), (True, b"", [], []))
        self.assertEqual(self.hop.factory.connections, set())
