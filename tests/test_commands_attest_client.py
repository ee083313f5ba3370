"""Tests of `nitroproxy attest fetch` and `attest forward`: with an enclave, and against what is none."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import Policy, Refused
from nitroproxy.attestation.evidence import Identity
from nitroproxy.commands.attest_client import Forwarder, connects_to, explain, verified
from nitroproxy.commands.main import main
from nitroproxy.proxy.deadlines import Deadlines
from tests.attestation.tlspair import Key
from tests.chain import Gathering
from tests.test_chain_attested import CANARY_DOWN, CANARY_UP, AttestedChainCase
from tests.wire import OneHop, Wire

reactor: Any = global_reactor


class ArgumentTests(SynchronousTestCase):
    """Command lines that cannot be used."""

    def setUp(self) -> None:
        self.err = io.StringIO()
        self.patch(sys, "stderr", self.err)
        self.policy = self.mktemp()
        pcrs = {str(index): "01" * 48 for index in range(3)}
        Path(self.policy).write_text(json.dumps({"accept": [{"name": "a", "pcrs": pcrs, "public": True}]}))

    def status(self, *argv: str) -> int:
        return main(["attest", *argv])

    def test_urls(self) -> None:
        """Only https URLs of a host."""
        for command in ("fetch", "forward"):
            for url in ("http://a", "a:8443", "https://", "https://a/?x", "ftp://a"):
                error = self.assertRaises(SystemExit, self.status, command, url, "--policy", self.policy)
                self.assertEqual(error.code, 2)

    def test_listen(self) -> None:
        """An address and a port."""
        for listen in ("8444", "localhost:1", "127.0.0.1:65536", "127.0.0.1:", "[::1]", "127.0.0.1:x"):
            arguments = ("forward", "https://a", "--policy", self.policy, "--listen", listen)
            self.assertEqual(self.assertRaises(SystemExit, self.status, *arguments).code, 2)
            self.assertIn("expected an IP address and a port", self.err.getvalue())

    def test_files(self) -> None:
        """A policy and a client certificate that can be used."""
        for arguments, why in (
            (["--policy", "/no/such/policy"], "/no/such/policy"),
            (["--policy", self.policy, "--client-key", "x"], "expected both --client-certificate and --client-key"),
            (["--policy", self.policy, "--client-certificate", "/no", "--client-key", "/no"], "/no: No such file"),
        ):
            self.assertEqual(self.status("fetch", "https://a", *arguments), 2)
            self.assertIn(why, self.err.getvalue())

    def test_no_roots(self) -> None:
        """No option names a trust anchor."""
        for option in ("--root", "--roots", "--root-certificate", "--ca", "--insecure"):
            arguments = ("fetch", "https://a", "--policy", self.policy, option, "x")
            self.assertEqual(self.assertRaises(SystemExit, self.status, *arguments).code, 2)

    def test_explain(self) -> None:
        """A refusal is status 1 and names the rule; anything else is status 2. What the peer has said is escaped."""
        self.assertEqual(explain(Refused("policy", "no entry")), 1)
        self.assertEqual(explain(OSError("\x1b[2J")), 2)
        self.assertEqual(explain(ConnectionError()), 2)
        self.assertEqual(
            self.err.getvalue().splitlines(),
            [
                "nitroproxy: refused: policy: no entry",
                "nitroproxy: the enclave cannot be reached: \\x1b[2J",
                "nitroproxy: the enclave cannot be reached: ConnectionError",
            ],
        )


class LocalEndTests(SynchronousTestCase):
    """Local connections, in memory."""

    def setUp(self) -> None:
        self.hop = OneHop()
        self.failures: list[BaseException] = []
        self.forwarder = Forwarder(self.hop.endpoint, Deadlines(self.hop.clock), self.failures.append)

    def local(self) -> Wire:
        return Wire(self.forwarder.buildProtocol(None))

    def test_joined(self) -> None:
        """Nothing is read until the enclave is accepted; then bytes pass both ways, and an end ends both."""
        local = self.local()
        self.assertTrue(local.paused)
        enclave = self.hop.endpoint.accept()
        self.assertFalse(local.paused)
        local.receive(b"up")
        enclave.receive(b"down")
        self.assertEqual((enclave.take(), local.take()), (b"up", b"down"))
        local.lose()
        self.hop.clock.advance(1)
        enclave.settle()
        self.assertTrue(enclave.closed)

    def test_refused(self) -> None:
        """When the enclave is refused the local connection is reset, and the reason told."""
        local = self.local()
        self.hop.endpoint.refuse(Refused("policy", "no"))
        self.assertTrue(local.aborted)
        self.assertIsInstance(self.failures[0], Refused)

    def test_gone(self) -> None:
        """A local connection that ends before cancels the other, and that is no failure."""
        local = self.local()
        local.lose()
        self.assertEqual((self.hop.endpoint.cancelled, self.failures), (1, []))


class Printing(ProcessProtocol):
    """A process whose output is waited for."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.printed: Deferred[None] = Deferred()
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data
        if b"\n" in self.output and not self.printed.called:
            self.printed.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        error = reason.value
        self.ended.callback(error.exitCode if isinstance(error, ProcessTerminated) else 0)


class EnclaveTests(AttestedChainCase):
    """With an enclave of the running stack."""

    async def connect(self, policy: Policy | None = None, **more: Any) -> Any:
        connects = connects_to(self.outside_url(), policy or self.nsm.policy, True, roots=self.nsm.chain.roots, **more)
        return await verified(connects(reactor))

    async def test_fetch(self) -> None:
        """The right enclave proves itself, challenged."""
        identity = await self.connect()
        assert isinstance(identity, Identity)
        self.assertEqual(identity.attestation.entry, "fake")
        self.assertEqual(self.nsm.requests[-1]["Attestation"]["public_key"], identity.spki)
        self.assertIsNotNone(self.nsm.requests[-1]["Attestation"]["nonce"])

    def policy_file(self) -> str:
        """The right policy, as a file."""
        [entry] = self.nsm.policy.entries
        pcrs = {str(index): value.hex() for index, value in entry.pcrs.items()}
        path = Path(self.mktemp()).absolute()
        path.write_text(json.dumps({"accept": [{"name": "fake", "pcrs": pcrs}]}))
        return str(path)

    def words(self, *arguments: str) -> list[str]:
        code = "import sys; from nitroproxy.commands.main import main; sys.exit(main())"
        return ["-c", code, "attest", *arguments, "--policy", self.policy_file()]

    async def test_fetch_command(self) -> None:
        """The command trusts AWS's root alone: the enclave of a test is refused with status 1; where nothing listens it
        is 2."""
        out, err, code = await getProcessOutputAndValue(
            sys.executable, self.words("fetch", self.outside_url()), os.environ
        )
        self.assertEqual((out, code), (b"", 1))
        self.assertIn(b"nitroproxy: refused: root: the chain begins with", err)
        _, err, code = await getProcessOutputAndValue(
            sys.executable, self.words("fetch", "https://127.0.0.1:1"), os.environ
        )
        self.assertEqual(code, 2)
        self.assertIn(b"the enclave cannot be reached: ", err)
        self.assertEqual(self.application.heard, [])

    async def test_forward_command(self) -> None:
        """The same of connections that are forwarded: they are reset, with the reason on standard error."""
        printing = Printing()
        words = [sys.executable, *self.words("forward", self.outside_url(), "--listen", "127.0.0.1:0")]
        process = reactor.spawnProcess(printing, sys.executable, words, os.environ)
        await printing.printed
        url = printing.output.decode().split()[-1]
        self.assertTrue(url.startswith("http://127.0.0.1:"), url)
        with self.assertRaises(Exception):  # noqa: B017  # whichever way it ends
            await treq.post(f"{url}/", data=CANARY_UP, persistent=False)
        process.signalProcess("TERM")
        await printing.ended
        self.assertIn(b"nitroproxy: refused: root: ", printing.errors)
        self.assertNotIn(CANARY_UP, self.host.crossed[0])
        self.assertEqual(self.application.heard, [])

    async def test_forward(self) -> None:
        """Plain HTTP on this machine is answered by the application in the enclave; the host sees nothing of it."""
        connects = connects_to(self.outside_url(), self.nsm.policy, False, roots=self.nsm.chain.roots)
        deadlines = Deadlines(reactor)
        self.addCleanup(deadlines.stop)
        failures: list[BaseException] = []
        forwarder = Forwarder(connects(reactor), deadlines, failures.append)
        listening = reactor.listenTCP(0, forwarder, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        url = f"http://127.0.0.1:{listening.getHost().port}/forwarded"
        large = os.urandom(1 << 20)
        for body in (CANARY_UP, large):
            response = await treq.post(url, data=body, persistent=False)
            self.assertEqual(await response.content(), CANARY_DOWN + b" " + body)
        self.assertEqual(failures, [])
        for side in self.host.crossed:
            self.assertNotIn(CANARY_UP, side)
            self.assertNotIn(b"/forwarded", side)

    async def test_half_closed(self) -> None:
        """A program that ends its direction after its request is answered all the same."""
        connects = connects_to(self.outside_url(), self.nsm.policy, False, roots=self.nsm.chain.roots)
        deadlines = Deadlines(reactor)
        self.addCleanup(deadlines.stop)
        listening = reactor.listenTCP(0, Forwarder(connects(reactor), deadlines, print), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        from twisted.internet.endpoints import TCP4ClientEndpoint

        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port).connect(
            Factory.forProtocol(Gathering)
        )
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        client.transport.loseWriteConnection()
        await client.until(CANARY_DOWN)
        await client.ended

    async def test_other_enclave(self) -> None:
        """Another key than the one that was fetched is another enclave: its pin differs."""
        identity = await self.connect()
        await self.stop("enclave")
        self.start("enclave")
        again = await self.connect()
        self.assertNotEqual(identity.spki, again.spki)
        self.assertNotEqual(Key().spki, again.spki)
