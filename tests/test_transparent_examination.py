"""Examining the way of applications: `nitroproxy.transparent.examination`."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import fail
from twisted.internet.error import getConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

import nitroproxy.transparent.examination as module
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.transparent.answers import Answer, Code, Outcome
from nitroproxy.transparent.dns_server import NameServer
from nitroproxy.transparent.examination import Examination
from nitroproxy.transparent.names import NameTable

reactor: Any = global_reactor


class ExaminationTests(TestCase):
    """With a listener and a name server on loopback in the place of the real ones."""

    timeout = 20

    def setUp(self) -> None:
        self.table = NameTable(self.mktemp(), most=10)
        self.addCleanup(self.table.close)
        for number in range(3):
            self.table.number_of(f"{number}.example")
        listening = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.patch(module, "PROBE_V4", "127.0.0.1")
        self.patch(module, "PROBE_V6", "::1")
        self.patch(module, "_PORT", listening.getHost().port)
        self.code = Code.NOERROR
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 0))
        self.addCleanup(udp.close)
        self.addCleanup(tcp.close)
        udp.bind(("127.0.0.1", 0))
        self.patch(module, "_DNS", udp.getsockname())
        deadlines = Deadlines(reactor)
        self.addCleanup(deadlines.stop)
        server = NameServer(reactor, udp.fileno(), tcp.fileno(), self.answer, lambda *told: None, deadlines)
        server.listen()
        self.addCleanup(server.stop, 1)
        self.examination = Examination(reactor, self.table, dns=True, ipv6=False)

    def answer(self, name: bytes, kind: int) -> Answer:
        return Answer(self.code, Outcome.ANSWERED, b"" if self.code else b"\x7f\0\0\1")

    async def test_well(self) -> None:
        """It says how many names there are; when nearly no address is left it warns."""
        check = await self.examination()
        self.assertEqual((check.status, check.output), ("pass", "3 of 10 names"))
        for number in range(10):
            self.table.number_of(f"{number}.example")
        check = await self.examination()
        self.assertEqual(check.status, "warn")
        self.assertIn("10 of 10 names", check.output)

    async def test_no_way(self) -> None:
        """Connections that do not arrive fail it, and so does each family of its own."""
        closed = socket.socket()
        self.addCleanup(closed.close)
        closed.bind(("127.0.0.1", 0))
        self.patch(module, "_PORT", closed.getsockname()[1])
        check = await Examination(reactor, self.table, dns=False, ipv6=True)()
        self.assertEqual(check.status, "fail")
        self.assertIn("IPv4 connections do not come here", check.output)
        self.assertIn("IPv6 connections do not come here", check.output)

    async def test_closed_already(self) -> None:
        """A connection that another worker has closed before its making was noticed has come here."""
        reset = getConnectError((errno.ECONNRESET, "reset"))
        self.patch(module, "connectProtocol", lambda endpoint, protocol: fail(reset))
        self.assertEqual((await Examination(reactor, self.table, dns=False, ipv6=True)()).status, "pass")

    async def test_no_names(self) -> None:
        """A name server that does not answer, or without an answer, fails it, unless names are not answered."""
        self.code = Code.SERVFAIL
        check = await self.examination()
        self.assertEqual((check.status, check.output), ("fail", "DNS answers with code 2"))
        nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(nobody.close)
        nobody.bind(("127.0.0.1", 0))
        self.patch(module, "_DNS", nobody.getsockname())
        check = await self.examination()
        self.assertIn("DNS does not answer", check.output)
        check = await Examination(reactor, self.table, dns=False, ipv6=False)()
        self.assertEqual(check.status, "pass")
