"""The local upstream: what it counts, and the program as a whole."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from nitroproxy.demo.upstream import TrapFactory
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, LocalUpstream, read_upstream_file
from tests.test_demo_cases import reactor


class TrapTests(SynchronousTestCase):
    """The listeners that must receive nothing."""

    def test_it_counts_every_byte_and_answers(self) -> None:
        """What a trap is sent is counted over all its connections, and answered so that a fault shows as success."""
        factory = TrapFactory()
        for data in (b"abc", b"de"):
            trap, transport = factory.buildProtocol(None), StringTransport()
            trap.makeConnection(transport)
            trap.dataReceived(data)
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))
            self.assertTrue(transport.disconnecting)
        self.assertEqual(factory.received, 5)

    def test_a_handshake_alone_counts_nothing(self) -> None:
        """A connection that sends nothing is not counted."""
        factory = TrapFactory()
        factory.buildProtocol(None).makeConnection(StringTransport())
        self.assertEqual(factory.received, 0)


class _Upstream(ProcessProtocol):
    """The program: fires `ready` at its line of announcement and `ended` with its exit status."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[int | None] = Deferred()
        self.output = b""

    def errReceived(self, data: bytes) -> None:
        self.output += data
        if b"upstream: https://" in self.output and not self.ready.called:
            self.ready.callback(None)

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(getattr(reason.value, "exitCode", None))


@implementer(IPolicyForHTTPS)
class _TrustOne:
    """Trusts one CA and nothing else."""

    def __init__(self, ca: bytes) -> None:
        self._ca = Certificate.loadPEM(ca)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return optionsForClientTLS(hostname.decode(), trustRoot=self._ca)


class ProgramTests(TestCase):
    """The program as a process of its own."""

    def start(self, *arguments: str) -> tuple[_Upstream, IProcessTransport]:
        """Start the program with *arguments*; it is killed at the end of the test if it still runs."""
        upstream = _Upstream()
        root = str(Path(__file__).parent.parent)
        environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": root}
        command = [sys.executable, "-m", "nitroproxy.demo.upstream", *arguments]
        process = cast(Any, reactor).spawnProcess(upstream, sys.executable, command, env=environment)

        def kill() -> Deferred[int | None] | None:
            if upstream.ended.called:
                return None
            process.signalProcess("KILL")
            return upstream.ended

        self.addCleanup(kill)
        return upstream, process

    async def test_it_serves_what_it_announces_until_it_is_told_to_stop(self) -> None:
        """It serves httpbin and both echoes with its own CA, and SIGTERM ends it with 0 and removes its file."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        program, process = self.start("--directory", str(directory))
        await program.ready
        upstream = read_upstream_file(directory / "upstream.json")
        self.assertEqual((upstream.ca_file, upstream.pid), (str(directory / "ca.pem"), process.pid))

        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        http = HTTPClient(Agent(reactor, _TrustOne(Path(upstream.ca_file).read_bytes()), pool=pool))
        seen = await (await http.get(f"{upstream.url('https')}/get?x=1")).json()
        self.assertEqual(seen["args"], {"x": "1"})
        body = os.urandom(300_000)
        for path in ("/echo", "/stored-echo"):
            digest = hashlib.sha256()
            answer = await http.post(upstream.url("https") + path, data=body[: 1 << 14] if path == "/echo" else body)
            await answer.collect(digest.update)
            wanted = hashlib.sha256(body[: 1 << 14] if path == "/echo" else body)
            self.assertEqual((answer.code, digest.hexdigest()), (200, wanted.hexdigest()), path)
        await self.check_refusals(http, upstream)
        await pool.closeCachedConnections()

        process.signalProcess(signal.SIGTERM)
        self.assertEqual(await program.ended, 0)
        self.assertFalse((directory / "upstream.json").exists())

    async def check_refusals(self, http: HTTPClient, upstream: LocalUpstream) -> None:
        """A client that verifies is refused by its own check, and the listener has received nothing."""
        for name in ("expired", "self_signed", "wrong_name"):
            await self.assertFailure(http.get(upstream.url(name)), Exception)
        counts = await (await http.get(f"{upstream.url('https')}/demo/bytes-received")).json()
        self.assertEqual(counts, dict.fromkeys(BAD_CERTIFICATES, 0))

    async def test_a_start_that_fails_is_one_line(self) -> None:
        """A directory that is not there gives one line and status 1."""
        program, _ = self.start("--directory", str(Path(self.mktemp())))
        self.assertEqual(await program.ended, 1)
        [line] = program.output.decode().splitlines()
        self.assertIn("No such file or directory", line)
