"""Tunnels between the kernel's sockets: bulk both ways, ends, resets, stalled readers, and what is left after."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from nitroproxy.http1.messages import Request
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.proxy.settings import ListenerSettings

reactor: Any = global_reactor


CONNECT = b"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\n\r\n"


class EveryOne:
    """Routes every request to one port."""

    def __init__(self, port: int) -> None:
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        return Dial(lambda identity: self._endpoint)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`."""


class SocketTests(TestCase):
    """Client and server block, each in a thread of its own."""

    timeout = 30

    async def listen(self, family: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(30)
        self.addCleanup(self.server.close)
        self.deadlines = Deadlines(reactor)
        self.addCleanup(self.deadlines.stop)
        router = EveryOne(self.server.getsockname()[1])
        self.factory = DownstreamFactory("test", router, ListenerSettings(), self.deadlines)
        path = f"/tmp/{os.urandom(8).hex()}.sock"
        endpoint: Any = UNIXServerEndpoint(reactor, path) if family == "unix" else TCP4ServerEndpoint(reactor, 0)
        port: Any = await endpoint.listen(self.factory)
        self.addCleanup(port.stopListening)
        self.family = socket.AF_UNIX if family == "unix" else socket.AF_INET
        self.address = path if family == "unix" else ("127.0.0.1", port.getHost().port)

    def enter(self) -> tuple[socket.socket, socket.socket]:
        """A tunnel: the client's end and the server's. Blocks."""
        client = socket.socket(self.family)
        client.settimeout(30)
        client.connect(self.address)
        client.sendall(CONNECT)
        server, _ = self.server.accept()
        server.settimeout(30)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        return client, server

    async def join(self) -> tuple[socket.socket, socket.socket]:
        """The same without blocking."""
        ends = await deferToThread(self.enter)
        for end in ends:
            self.addCleanup(end.close)
        return ends

    async def gone(self) -> None:
        """Wait until the listener has no connection any more."""
        while self.factory.connections:
            await deferLater(reactor, 0.01, lambda: None)

    async def bulk_both_ways(self, family: str) -> None:
        await self.listen(family)
        ends = await self.join()
        sizes = 7_000_001, 9_000_003
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sent = [deferToThread(send, end, size, size) for end, size in zip(ends, sizes, strict=True)]
        read = [deferToThread(read_all, end, size) for end, size in zip(ends, sizes, strict=True)]
        said = [await sending for sending in sent]
        heard = [await reading for reading in read]
        self.assertEqual(heard, said[::-1])
        for end in ends:
            end.close()
        await self.gone()

    async def test_bulk_from_tcp(self) -> None:
        """Megabytes both ways at once, with small windows, and each direction ended by itself: nothing is changed."""
        await self.bulk_both_ways("tcp")

    async def test_bulk_from_unix(self) -> None:
        """The same from a UNIX socket."""
        await self.bulk_both_ways("unix")

    async def test_one_way_ended(self) -> None:
        """Bulk goes on in one direction when the other has ended."""
        await self.listen("tcp")
        client, server = await self.join()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(await deferToThread(server.recv, 1), b"")
        sending = deferToThread(send, server, 1, 3_000_000)
        self.assertEqual(await deferToThread(read_all, client, 1), await sending)
        client.close()
        server.close()
        await self.gone()

    async def test_reset_amid_bulk(self) -> None:
        """A reset amid bulk is a reset to the other side, after bytes that are all right."""
        await self.listen("tcp")
        client, server = await self.join()

        def break_off() -> None:
            server.sendall(bytes(1_000_000))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()

        def read() -> None:
            while data := client.recv(65536):
                self.assertEqual(data.strip(b"\0"), b"")

        breaking = deferToThread(break_off)
        await self.assertFailure(deferToThread(read), ConnectionResetError)
        await breaking
        client.close()
        await self.gone()

    async def test_stalled_reader(self) -> None:
        """For a reader that takes nothing one read is held at most, and what the kernel has is not ours."""
        await self.listen("unix")
        client, server = await self.join()
        server.settimeout(0.2)

        def fill() -> int:
            sent = 0
            try:
                while True:
                    sent += server.send(bytes(65536))
            except TimeoutError:
                return sent

        sent = await deferToThread(fill)
        [connection] = self.factory.connections
        self.assertIsNotNone(connection.record)
        assert connection.record is not None
        _, passed = connection.record.moved
        client.setblocking(False)
        in_kernel = 0
        try:
            while True:
                in_kernel += len(client.recv(1 << 20))
        except BlockingIOError:
            pass
        self.assertLessEqual(passed - in_kernel, 65536)
        self.assertGreaterEqual(sent, passed)
        client.close()
        server.close()
        await self.gone()

    async def test_nothing_left(self) -> None:
        """After 200 tunnels, with bulk through each, there are as many descriptors as before."""
        await self.listen("unix")
        descriptors: list[int] = []
        for _ in range(2):
            for _ in range(100):
                client, server = await deferToThread(self.enter)
                sending = deferToThread(send, server, 1, 200_000)
                self.assertEqual(await deferToThread(read_all, client, 1), await sending)
                client.close()
                server.close()
            await self.gone()
            descriptors.append(len(os.listdir("/proc/self/fd")))
        self.assertEqual(descriptors[0], descriptors[1])


def send(connection: socket.socket, seed: int, size: int) -> tuple[int, bytes]:
    """Send *size* random bytes in pieces of random sizes, then end that direction; their number and SHA-256."""
    chance = random.Random(seed)
    digest = hashlib.sha256()
    left = size
    while left:
        piece = chance.randbytes(min(left, chance.choice([1, 100, 10_000, 200_000])))
        left -= len(piece)
        digest.update(piece)
        connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)
    return size, digest.digest()


def read_all(connection: socket.socket, seed: int) -> tuple[int, bytes]:
    """Read to the end in pieces of random sizes; the number of bytes and their SHA-256."""
    chance = random.Random(seed)
    digest = hashlib.sha256()
    count = 0
    while data := connection.recv(chance.choice([100, 10_000, 200_000])):
        count += len(data)
        digest.update(data)
    return count, digest.digest()
