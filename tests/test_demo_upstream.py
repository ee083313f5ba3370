"""The local upstream: its certificates, its echoes, what it counts, and the program as a whole."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport, IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from nitroproxy.demo.certificates import MAKE_BAD, ServerIdentity, ThrowAwayAuthority
from nitroproxy.demo.upstream import TrapFactory
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, LocalUpstream, read_upstream_file
from nitroproxy.demo.upstream_site import UpstreamRoot, UpstreamSite
from tests.test_demo_cases import reactor


def certificate(identity: ServerIdentity) -> x509.Certificate:
    """The certificate of *identity*."""
    return x509.load_pem_x509_certificate(identity.pem)


def names(of: x509.Certificate) -> list[str]:
    """The subjectAltName of *of*, empty if there is none."""
    try:
        found = of.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found.value]


class CertificateTests(SynchronousTestCase):
    """Each bad certificate is bad in its own way only."""

    def setUp(self) -> None:
        """A CA and one certificate of each kind."""
        self.authority = ThrowAwayAuthority()
        self.ca = x509.load_pem_x509_certificate(self.authority.pem)
        self.key = cast(ec.EllipticCurvePublicKey, self.ca.public_key())
        self.bad = {name: certificate(make(self.authority)) for name, make in MAKE_BAD.items()}

    def test_the_good_one_is_for_this_machine(self) -> None:
        """The good certificate is signed by the CA for localhost and 127.0.0.1."""
        good = certificate(self.authority.issue())
        good.verify_directly_issued_by(self.ca)
        self.assertEqual(names(good), ["localhost", "127.0.0.1"])

    def test_there_is_one_of_each_kind(self) -> None:
        """Every kind that the file names is made."""
        self.assertEqual(list(MAKE_BAD), list(BAD_CERTIFICATES))

    def test_names_are_what_is_wrong_with_them(self) -> None:
        """The certificates with bad names have those, and all others are for this machine."""
        local = ["localhost", "127.0.0.1"]
        wrong = {
            "wrong_name": ["wrong.example"],
            "no_san": [],
            "email_only_san": ["ops@localhost"],
            "malformed_wildcard": ["*.*.localhost"],
        }
        self.assertEqual({name: names(bad) for name, bad in self.bad.items()}, dict.fromkeys(MAKE_BAD, local) | wrong)

    def test_only_one_has_expired(self) -> None:
        """The expired certificate ended in the past, after it began; all others are valid now."""
        now = datetime.datetime.now(datetime.UTC)
        expired = [name for name, bad in self.bad.items() if bad.not_valid_after_utc < now]
        self.assertEqual(expired, ["expired"])
        self.assertTrue(all(bad.not_valid_before_utc < bad.not_valid_after_utc for bad in self.bad.values()))

    def test_only_one_is_self_signed(self) -> None:
        """All but the self-signed certificate are signed by the CA."""
        own = [name for name, bad in self.bad.items() if bad.issuer == bad.subject]
        self.assertEqual(own, ["self_signed"])
        for name in set(MAKE_BAD) - {"self_signed"}:
            self.bad[name].verify_directly_issued_by(self.ca)


class Catcher(Resource):
    """Stands for httpbin: keeps the headers and the path that it is asked for."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[bytes], str | None, str | None]] = []

    def render(self, request: Request) -> bytes:
        """Remember what httpbin would see."""
        lengths = request.getHeader("content-length"), request.getHeader("transfer-encoding")
        self.seen.append((list(request.postpath or []), *lengths))
        return b"caught"


class SiteTests(SynchronousTestCase):
    """The site, on a transport in memory."""

    def setUp(self) -> None:
        """One connection."""
        self.caught = Catcher()
        self.log: list[tuple[str, str, int, int]] = []
        root = UpstreamRoot(self.caught, lambda: {"expired": 7})
        site = UpstreamSite(root, lambda *line: self.log.append(line))
        self.transport = StringTransport()
        self.channel = site.buildProtocol(None)
        self.channel.callLater = reactor_that_never_calls
        self.channel.makeConnection(self.transport)
        self.addCleanup(self.channel.connectionLost, Failure(ConnectionError()))

    def taken(self) -> bytes:
        """What has been written since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def test_an_echo_does_not_wait_for_the_end(self) -> None:
        """Each piece of a body is sent back before the next one has come."""
        self.channel.dataReceived(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        self.assertEqual(self.taken(), b"")
        self.channel.dataReceived(b"abc")
        head, _, body = self.taken().partition(b"\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 OK\r\n", head)
        self.assertIn(b"Content-Length: 6", head)
        self.assertEqual(body, b"abc")
        self.channel.dataReceived(b"de")
        self.assertEqual(self.taken(), b"de")
        self.channel.dataReceived(b"f")
        self.assertEqual((self.taken(), self.log), (b"f", [("POST", "/echo", 200, 6)]))

    def test_a_chunked_echo_is_chunked(self) -> None:
        """A body of unknown length comes back in chunks, after 100 Continue where that was asked for."""
        self.channel.dataReceived(
            b"POST /echo?x=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(self.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.channel.dataReceived(b"3\r\nabc\r\n")
        self.assertEqual(self.taken().partition(b"\r\n\r\n")[2], b"3\r\nabc\r\n")
        self.channel.dataReceived(b"0\r\n\r\n")
        self.assertEqual(self.taken(), b"0\r\n\r\n")

    def test_echoes_follow_each_other_on_one_connection(self) -> None:
        """Pipelined requests each get their own answer, an empty body included."""
        one = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
        self.channel.dataReceived(one % (1, b"a") + one % (0, b"") + b"GET /get HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.taken().count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.assertEqual([line[1] for line in self.log], ["/echo", "/echo", "/get"])

    def test_an_echo_reads_no_faster_than_it_is_read(self) -> None:
        """While the transport takes no more of the answer, the rest of the request is not read."""
        self.channel.dataReceived(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        producer = cast(IPushProducer, self.transport.producer)
        producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_the_counters_are_json(self) -> None:
        """What the bad listeners received can be asked for."""
        self.channel.dataReceived(b"GET /demo/bytes-received HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(json.loads(self.taken().partition(b"\r\n\r\n")[2]), {"expired": 7})

    def test_httpbin_gets_the_whole_path_and_a_length(self) -> None:
        """All other paths are httpbin's; a chunked body, which it would refuse, has its length by then."""
        self.channel.dataReceived(
            b"POST /a/b?q=secret HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertEqual(self.caught.seen, [([b"a", b"b"], "3", None)])
        self.assertEqual(self.log, [("POST", "/a/b", 200, 6)])


def reactor_that_never_calls(seconds: float, function: object, *arguments: object) -> Any:
    """A `callLater` for tests in which no time passes."""
    return _Never()


class _Never:
    def active(self) -> bool:
        return False

    def cancel(self) -> None:
        return None

    def reset(self, seconds: float) -> None:
        return None


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
