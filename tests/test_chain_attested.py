"""Attested TLS through both daemons: clients from outside, a host that is honest or not, the application."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from nitroproxy.attestation import Policy, Refused, verify
from nitroproxy.attestation.evidence import IDENTITY, make_certificate
from nitroproxy.enclave import gates
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.tls.attested import AttestedAgent
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier
from nitroproxy.tls.server import TLSServer
from nitroproxy.tls.settings import ClientCertificateFiles
from tests.attestation.fake_nsm import FakeNsm
from tests.attestation.tlspair import Key
from tests.chain import ChainCase, Gathering
from tests.ports import free_port
from tests.tlsmemory import Authority

reactor: Any = global_reactor
CANARY_UP, CANARY_DOWN = b"canary-of-the-request", b"canary-of-the-answer"


class ApplicationPages(Resource):
    """The application in the enclave: answers with what it heard."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[bytes, bytes, bytes]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.waiting: Request | None = None

    def render(self, request: Request) -> bytes | int:
        """Answer, redirect, or wait."""
        assert request.content is not None
        body: bytes = request.content.read()
        self.heard.append((request.method, request.uri, body))
        self.headers.append({name: values[0] for name, values in request.requestHeaders.getAllRawHeaders()})
        if request.path == b"/moved":
            request.setResponseCode(302)
            request.setHeader("Location", "https://elsewhere.example/")
        if request.path == b"/waiting":
            self.waiting = request
            return NOT_DONE_YET
        return CANARY_DOWN + b" " + body


class Relaying(Protocol):
    """One end of a connection that a host passes on."""

    def __init__(self, take: Callable[[bytes], bytes]) -> None:
        self._take = take
        self.other: Relaying | None = None
        self.early: list[bytes] = []

    def join(self, other: Relaying) -> None:
        """Pass on to *other*."""
        self.other = other
        for data in self.early:
            other.transport.write(data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        data = self._take(data)
        if self.other is None:
            self.early.append(data)
        elif data:
            self.other.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()


class Host(Factory):
    """What a host may do with connections from outside: pass them on and look, or worse.

    :ivar crossed: what has crossed, from the client and from the enclave.
    :ivar spoil: changes what comes from the enclave, given it and how many bytes came before.
    :ivar cut_after: bytes from the enclave after which the connection is cut; None: never.
    """

    noisy = False

    def __init__(self, target: Path) -> None:
        self._target = target
        self.crossed = [b"", b""]
        self.spoil: Callable[[bytes, int], bytes] = lambda data, before: data
        self.cut_after: int | None = None

    def buildProtocol(self, addr: object) -> Relaying:
        """Connect to the enclave too."""
        seen = 0

        def from_client(data: bytes) -> bytes:
            self.crossed[0] += data
            return data

        def from_enclave(data: bytes) -> bytes:
            nonlocal seen
            self.crossed[1] += data
            data = self.spoil(data, seen)
            seen += len(data)
            if self.cut_after is not None and seen > self.cut_after:
                reactor.callLater(0, near.transport.abortConnection)  # type: ignore[union-attr]
                return data[: max(len(data) - (seen - self.cut_after), 0)]
            return data

        near, far = Relaying(from_client), Relaying(from_enclave)
        connecting: Any = UNIXClientEndpoint(reactor, str(self._target)).connect(Factory.forProtocol(lambda: far))

        def connected(_: object) -> None:
            far.join(near)
            near.join(far)

        connecting.addCallbacks(connected, lambda _: near.transport.abortConnection())  # type: ignore[union-attr]
        return near


class AttestedChainCase(ChainCase):
    """Both daemons, an application, and a host that passes connections from outside on.

    :ivar outside: the TCP port that clients from outside connect to.
    """

    tapped = False

    async def setUp(self) -> None:  # type: ignore[override]
        self.nsm = FakeNsm(time.time)
        self.patch(fcntl, "ioctl", self.nsm.ioctl)
        clocks = Path(self.mktemp())
        clocks.mkdir()
        for name in ("current", "available"):
            (clocks / f"{name}_clocksource").write_text("tsc")
        self.patch(gates, "CLOCKS", clocks)
        self.application = ApplicationPages()
        served = reactor.listenTCP(0, Site(self.application), interface="127.0.0.1")
        self.addCleanup(served.stopListening)
        self.application_port = served.getHost().port
        self.authority = Authority("clients")
        self.client_ca = Path(self.mktemp()).absolute()
        self.client_ca.write_bytes(self.authority.pem)
        await super().setUp()
        self.host = Host(self.directory / "both" / "enclave" / "5443.sock")
        listening = reactor.listenTCP(0, self.host, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.outside = listening.getHost().port
        self.now = lambda: datetime.now(UTC)

    def start(self, role: str, environ: Mapping[str, str] | None = None, **more: object) -> None:
        """See `ChainCase`."""
        own: dict[str, object] = {
            "attestation__device": os.devnull,
            "attestation__emulated": True,
            "ingress__application": self.application_port,
            "ingress__client_ca_file": str(self.client_ca),
        }
        super().start(role, environ, **{**own, **more})

    def agent_for(self, policy: Policy | None = None, **more: Any) -> AttestedAgent:
        """A client with the right policy, or another."""
        own = {"roots": self.nsm.chain.roots, "now": self.now, "persistent": False}
        return AttestedAgent(reactor, policy or self.nsm.policy, **{**own, **more})

    def outside_url(self, path: str = "/") -> str:
        """The URL of the enclave for clients from outside."""
        return f"https://127.0.0.1:{self.outside}{path}"

    async def ask(self, agent: AttestedAgent | None = None, path: str = "/", method: str = "POST", **more: Any) -> Any:
        """Ask the application; status and body."""
        http = treq.client.HTTPClient(agent or self.agent_for())
        response = await http.request(method, self.outside_url(path), data=CANARY_UP, allow_redirects=False, **more)
        return response.code, await response.content()

    async def refused(self, agent: AttestedAgent | None = None, expected: type[Exception] = Refused) -> Any:
        """Ask in vain; why. Nothing has reached the application."""
        before = len(self.application.heard)
        try:
            found = await self.ask(agent)
        except expected as error:
            why: Any = error
        except ResponseFailed as error:
            [failure] = error.reasons
            why = failure.value
            self.assertIsInstance(why, expected)
        else:
            self.fail(f"not refused: {found}")
        self.assertEqual(len(self.application.heard), before)
        return why


class ClientTests(AttestedChainCase):
    """Clients of the right enclave."""

    async def test_answered(self) -> None:
        """A client with the right policy is answered by the application, and the host sees nothing of it."""
        code, body = await self.ask(path="/a?b=c")
        self.assertEqual((code, body), (200, CANARY_DOWN + b" " + CANARY_UP))
        self.assertEqual(self.application.heard, [(b"POST", b"/a?b=c", CANARY_UP)])
        [headers] = self.application.headers
        self.assertEqual(headers[b"Host"], f"127.0.0.1:{self.outside}".encode())
        for side in self.host.crossed:
            self.assertGreater(len(side), 400)
            for canary in (CANARY_UP, CANARY_DOWN, b"POST", b"HTTP/1.1", b"a?b=c"):
                self.assertNotIn(canary, side)

    async def test_kept_alive(self) -> None:
        """Requests share a connection, large bodies pass both ways."""
        agent = self.agent_for(persistent=True)
        body = os.urandom(1 << 20)
        http = treq.client.HTTPClient(agent)
        for _ in range(3):
            response = await http.post(self.outside_url(), data=body)
            self.assertEqual(await response.content(), CANARY_DOWN + b" " + body)
        await agent.close()
        page = await self.metrics()
        self.assertIn('nitroproxy_attested_handshakes_total{result="ok",role="enclave"} 1.0', page)

    async def test_challenge(self) -> None:
        """With a challenge each connection is proven at that moment, by the page of the enclave itself."""
        code, _ = await self.ask(self.agent_for(challenge=True))
        self.assertEqual(code, 200)
        self.assertEqual([uri for _, uri, _ in self.application.heard], [b"/"])
        page = await self.metrics()
        self.assertIn(
            'nitroproxy_attestation_documents_total{outcome="signed",role="enclave",use="challenge"} 1.0', page
        )

    async def test_redirects(self) -> None:
        """The application's redirects, and what browsers send it, are its own business."""
        http = treq.client.HTTPClient(self.agent_for())
        fields = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        headers = Headers({name: [value] for name, value in fields.items()})
        response = await http.get(self.outside_url("/moved"), headers=headers, allow_redirects=False)
        self.assertEqual(response.code, 302)
        self.assertEqual(response.headers.getRawHeaders("Location"), ["https://elsewhere.example/"])
        self.assertIsNone(response.headers.getRawHeaders("Content-Security-Policy"))

    async def test_only_https(self) -> None:
        """The agent sends nothing without TLS."""
        http = treq.client.HTTPClient(self.agent_for())
        for url in (f"http://127.0.0.1:{self.outside}/", f"ftp://127.0.0.1:{self.outside}/"):
            with self.assertRaises(Exception):  # noqa: B017  # treq's or Twisted's
                await http.get(url)
        self.assertEqual(self.host.crossed[0], b"")

    async def test_user_data(self) -> None:
        """What the application registers is in the certificate of the next connection."""
        url = f"http://127.0.0.1:{self.loopback}/enclave/attestation/user-data"
        response = await treq.put(url, data=b"registered", persistent=False)
        self.assertEqual(response.code, 204)
        self.assertEqual((await self.identity()).user_data, b"registered")

    async def identity(self) -> Any:
        """What a new connection's certificate proves."""
        verifier = Verifier(self.nsm.policy, roots=self.nsm.chain.roots, now=self.now)
        tls = AttestedTLS(verifier)
        endpoint = tls.wrap(TCP4ClientEndpoint(reactor, "127.0.0.1", self.outside), "127.0.0.1", reactor)
        protocol: Any = await endpoint.connect(Factory.forProtocol(Gathering))
        identity = protocol.transport.identity
        protocol.transport.abortConnection()
        await protocol.ended
        return identity

    async def metrics(self) -> str:
        """Both daemons' metrics."""
        response = await treq.get(f"http://127.0.0.1:{self.port}/metrics", persistent=False)
        text: str = await response.text()
        return text

    async def test_health(self) -> None:
        """Health says how the identity is."""
        _, checks = await self.health()
        [check] = checks["attestation"]
        self.assertEqual(check["status"], "warn")
        self.assertIn("EMULATED", check["output"])

    async def test_drain(self) -> None:
        """A request under way is finished when the daemon is stopped, and no other is taken."""
        asking = Deferred.fromCoroutine(self.ask(path="/waiting"))
        await self.until(True, self.is_waiting)
        stopping = Deferred.fromCoroutine(self.stop("enclave"))
        waiting = self.application.waiting
        assert waiting is not None
        waiting.write(b"late")
        waiting.finish()
        code, body = await asking
        self.assertEqual((code, body), (200, b"late"))
        await stopping
        await self.refused(expected=Exception)

    async def is_waiting(self) -> bool:
        """A request waits."""
        return self.application.waiting is not None

    async def test_gone_application(self) -> None:
        """While the application does not listen the client gets 502; the enclave is still proven."""
        await self.stop("enclave")
        self.start("enclave", ingress__application=free_port())
        code, body = await self.ask()
        self.assertEqual(code, 502)
        self.assertIn(b"the application does not listen on 127.0.0.1:", body)


class PassthroughTests(AttestedChainCase):
    """The host daemon's own TCP port, and a capture between it and the enclave."""

    tapped = True

    async def setUp(self) -> None:  # type: ignore[override]
        self.tcp_port = free_port()
        await super().setUp()
        self.to_attested = await self.tap("enclave", "enclave/5443.sock", "host")
        self.outside = self.tcp_port

    def start(self, role: str, environ: Mapping[str, str] | None = None, **more: object) -> None:
        """See `ChainCase`."""
        super().start(role, environ, ingress__tcp_port=self.tcp_port, ingress__interface="127.0.0.1", **more)

    async def test_passed_on(self) -> None:
        """Clients are answered through it, and what the host has is ciphertext, both ways."""
        agent = self.agent_for(persistent=True, challenge=True)
        for _ in range(2):
            code, body = await self.ask(agent)
            self.assertEqual((code, body), (200, CANARY_DOWN + b" " + CANARY_UP))
        await agent.close()
        crossed = b"".join(self.to_attested.crossed)
        self.assertGreater(len(crossed), 6000)
        for canary in (CANARY_UP, CANARY_DOWN, b"HTTP/1.1"):
            self.assertNotIn(canary, crossed)

    async def test_wrong_image(self) -> None:
        """Nothing of a request is on the wire when the policy does not accept the enclave."""
        [entry] = self.nsm.policy.entries
        other = Policy((replace(entry, pcrs={**entry.pcrs, 0: b"x" * 48}),))
        self.assertEqual((await self.refused(self.agent_for(other))).rule, "policy")

    async def test_enclave_gone(self) -> None:
        """Without an enclave the connection ends; the host answers nothing in its place."""
        await self.stop("enclave")
        await self.refused(expected=Exception)


class HostileTests(AttestedChainCase):
    """Whatever is not the right enclave, or is changed on the way: refused, and nothing has arrived anywhere."""

    def other(self, **changes: Any) -> Policy:
        [entry] = self.nsm.policy.entries
        return Policy((replace(entry, **changes),))

    async def test_policies(self) -> None:
        """Another image, or the right one elsewhere."""
        [entry] = self.nsm.policy.entries
        for index in (0, 1, 2, 3, 4):
            why = await self.refused(self.agent_for(self.other(pcrs={**entry.pcrs, index: b"x" * 48})))
            self.assertEqual(why.rule, "policy")

    async def test_real_roots(self) -> None:
        """An NSM that is not AWS's is refused by whoever does not say otherwise in Python."""
        why = await self.refused(AttestedAgent(reactor, self.nsm.policy, persistent=False))
        self.assertEqual(why.rule, "root")

    async def test_stale(self) -> None:
        """A document that is too old, or from the future."""
        for shift in (timedelta(hours=1, seconds=5), timedelta(minutes=-2)):
            self.now = lambda shift=shift: datetime.now(UTC) + shift  # type: ignore[misc]
            self.assertEqual((await self.refused()).rule, "age")

    async def test_debug(self) -> None:
        """An enclave in debug mode."""
        self.nsm.debug = True
        await self.stop("enclave")
        self.start("enclave")
        self.assertEqual((await self.refused()).rule, "debug")
        _, checks = await self.health()
        self.assertIn("DEBUG", checks["attestation"][0]["output"])

    async def test_swapped(self) -> None:
        """A host that answers in the enclave's place, with its document copied and a key of its own, or with what an
        application's document says."""
        heard: list[bytes] = []

        class Hearing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.append(data)

        thief = Key()
        now = datetime.now(UTC)
        real = Key()
        fields = {"user_data": IDENTITY, "public_key": real.spki, "nonce": None, "timestamp": round(time.time() * 1000)}
        documents = {
            "copied": self.sign(fields),
            "an application's": self.sign({**fields, "user_data": b"mine", "public_key": thief.spki}),
            "unknown field": self.sign({**fields, "public_key": thief.spki, "other": 1}),
            "no key": self.sign({**fields, "public_key": None}),
        }
        rules = {}
        for name, made in documents.items():
            server = TLSServer()
            server.use(thief.pkcs8, make_certificate(thief.private, made, now, now + timedelta(hours=1)))
            listening = reactor.listenTCP(
                0,
                server.around(Factory.forProtocol(Hearing), Deadlines(reactor).after, lambda: 10.0),
                interface="127.0.0.1",
            )
            self.outside = listening.getHost().port
            rules[name] = (await self.refused()).rule
            await listening.stopListening()
        self.assertEqual(
            rules, {"copied": "binding", "an application's": "binding", "unknown field": "fields", "no key": "binding"}
        )
        self.assertEqual(heard, [])

    def sign(self, fields: Mapping[str, Any]) -> bytes:
        """A document by the module's own key."""
        from tests.attestation import pki

        pcrs = {index: self.nsm._shown(index) for index in range(16)}
        return pki.document(self.nsm.chain, {**pki.fields(self.nsm.chain), "pcrs": pcrs, **fields})

    async def test_cut(self) -> None:
        """A host that cuts the connection, at any point of the handshake or of the answer."""
        for size in (0, 500, 2000, 5000):
            self.host.cut_after = size
            await self.refused(expected=Exception)
        self.host.cut_after = 40_000
        http = treq.client.HTTPClient(self.agent_for())
        with self.assertRaises(Exception):  # noqa: B017  # never taken for complete
            response = await http.post(self.outside_url(), data=bytes(100_000))
            await response.content()

    async def test_changed(self) -> None:
        """A host that changes a byte of what comes from the enclave."""
        for place in (50, 1000, 3000, 5000):

            def spoil(data: bytes, before: int, place: int = place) -> bytes:
                at = place - before
                return data if not 0 <= at < len(data) else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

            self.host.spoil = spoil
            await self.refused(expected=Exception)

    async def test_replayed(self) -> None:
        """A host that plays a recorded connection back."""
        await self.ask()
        recorded = self.host.crossed[1]

        class Playing(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(recorded)

        listening = reactor.listenTCP(0, Factory.forProtocol(Playing), interface="127.0.0.1")
        self.outside = listening.getHost().port
        await self.refused(expected=Exception)
        await listening.stopListening()

    async def test_plain(self) -> None:
        """What speaks no TLS gets nothing of the application."""
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.outside).connect(
            Factory.forProtocol(Gathering)
        )
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.ended
        self.assertEqual(self.application.heard, [])


class ProxyTests(AttestedChainCase):
    """The proxy, for clients with a certificate."""

    def certificate(self, authority: Authority) -> ClientCertificateFiles:
        """A client's certificate of *authority*, in files."""
        from cryptography import x509

        identity = authority.issue("client.example", without=[x509.ExtendedKeyUsage])
        files = ClientCertificateFiles(self.mktemp(), self.mktemp())
        Path(files.certificate_file).write_bytes(identity.pem)
        Path(files.key_file).write_bytes(identity.key_pem)
        Path(files.key_file).chmod(0o600)
        return files

    async def get(self, path: str, **more: Any) -> Any:
        http = treq.client.HTTPClient(self.agent_for(**more))
        response = await http.get(self.outside_url(path), headers=Headers({"x-canary": ["seen"]}))
        return response.code, await response.content()

    async def test_with_certificate(self) -> None:
        """It leads to the internet by way of the relay, within the policy."""
        files = self.certificate(self.authority)
        target = f"/https://localhost:{self.upstream.getHost().port}/"
        self.assertEqual(await self.get(target, client_certificate=files), (200, b"hello seen"))
        code, body = await self.get("/https://other.example/", client_certificate=files)
        self.assertEqual(code, 403)
        self.assertIn(b"destination_not_allowed", body)
        self.assertEqual((await self.ask(self.agent_for(client_certificate=files)))[0], 200)

    async def test_without(self) -> None:
        """Without one, or with another's, it is not for you."""
        code, body = await self.get(f"/https://localhost:{self.upstream.getHost().port}/")
        self.assertEqual(code, 403)
        self.assertIn(b"peer_denied", body)
        await self.refused(self.agent_for(client_certificate=self.certificate(Authority("clients"))), Exception)

    async def test_pages(self) -> None:
        """Neither from outside nor from the host can the pages for applications be reached, nor ours from outside."""
        files = self.certificate(self.authority)
        for path in ("/enclave/random", "/enclave/attestation/user-data", "/health", "/metrics"):
            code, _ = await self.get(path, client_certificate=files)
            self.assertEqual(code, 200)
            self.assertEqual(self.application.heard[-1][1], path.encode())
        for method, path in (
            ("GET", "/enclave/random"),
            ("PUT", "/enclave/attestation/user-data"),
            ("POST", "/enclave/attestation"),
        ):
            response = await treq.request(method, f"http://127.0.0.1:{self.port}{path}", data=b"{}", persistent=False)
            self.assertIn(response.code, (404, 405))
            await response.content()

    async def test_gateway(self) -> None:
        """The gateway passes the page for challenges on, and what it gives is verified by the nonce."""
        nonce = os.urandom(32)
        url = f"http://127.0.0.1:{self.port}/enclave/attestation?nonce={nonce.hex()}"
        response = await treq.get(url, persistent=False)
        document = await response.content()
        self.assertEqual(response.code, 200)
        found = verify(document, self.nsm.policy, now=datetime.now(UTC), nonce=nonce, roots=self.nsm.chain.roots)
        self.assertEqual(found.user_data, IDENTITY)


class CurlTests(AttestedChainCase):
    """curl, which knows nothing of attestation."""

    async def curl(self, *arguments: str) -> tuple[bytes, int]:
        """Run curl; its output and status."""
        curl = shutil.which("curl")
        if curl is None:
            self.skipTest("there is no curl")
        out, _, code = await getProcessOutputAndValue(
            curl, ["--silent", "--max-time", "20", *arguments, self.outside_url("/curl")], os.environ
        )
        return out, code

    async def test_pin(self) -> None:
        """With the pin of the enclave's key it is answered, with another it is not, and nothing arrives."""
        from nitroproxy.tls.attested_endpoint import pin_of

        identity = await ClientTests.identity(self)  # type: ignore[arg-type]
        pin = pin_of(identity.spki)
        self.assertEqual(await self.curl("-k", "--pinnedpubkey", pin, "-d", "x"), (CANARY_DOWN + b" x", 0))
        self.assertEqual(len(self.application.heard), 1)
        self.assertEqual(await self.curl("-k", "--pinnedpubkey", pin_of(Key().spki), "-d", "x"), (b"", 90))
        self.assertEqual(len(self.application.heard), 1)
