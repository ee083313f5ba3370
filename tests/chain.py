"""Shared by the tests of the whole chain: an upstream, taps between the hops, a client that waits."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.iweb import IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

import nitroproxy.enclave.service
import nitroproxy.host.service
from nitroproxy.demo.certificates import ThrowAwayAuthority
from nitroproxy.telemetry.logs import EventLog
from tests.ports import free_port

reactor: Any = global_reactor


@implementer(IPushProducer)
class Endless:
    """A response that continues as long as the client reads."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._paused = False
        self.stopped = False
        request.registerProducer(self, True)
        self._go_on()

    def _go_on(self) -> None:
        if not self._paused and not self.stopped:
            self._request.write(bytes(1024))
            reactor.callLater(0, self._go_on)

    def pauseProducing(self) -> None:
        """Enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """More."""
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """The client reads no more."""
        self.stopped = True


class Upstream(Resource):
    """The destination: echoes, and breaks off when asked to."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes | int:
        """Answer with a greeting, or break off in the middle in one of three ways."""
        tls: Any = request.channel.transport
        if request.path in (b"/broken", b"/stalled"):
            request.setHeader("Content-Length", "100")
            request.write(b"half")
        if request.path.startswith(b"/forged-"):
            hop = request.path.removeprefix(b"/forged-").decode()
            request.setResponseCode(502)
            request.setHeader("Proxy-Status", f"nitroproxy-{hop}; error=tls_certificate_error")
            return b""
        if request.path == b"/silent":
            return NOT_DONE_YET
        if request.path == b"/events":
            request.setHeader("Content-Type", "text/event-stream")
            request.write(b"data: 1\n\n")
            self.event_source = request
            return NOT_DONE_YET
        if request.path == b"/stalled":
            return NOT_DONE_YET
        if request.path == b"/endless":
            self.endless = Endless(request)
            return NOT_DONE_YET
        if request.path == b"/broken":
            reactor.callLater(0.05, tls.abortConnection)
            return NOT_DONE_YET
        if request.path == b"/until-close":
            tls.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
            # The TLS connection's own transport: its FIN comes without a close_notify.
            reactor.callLater(0.05, tls.transport.loseConnection)
            return NOT_DONE_YET
        return b"hello " + (request.getHeader("x-canary") or "").encode()

    def render_POST(self, request: Request) -> bytes:
        """The body's digest, then the body."""
        assert request.content is not None
        body: bytes = request.content.read()
        return hashlib.sha256(body).hexdigest().encode() + body


@implementer(IHalfCloseableProtocol)
class TapSide(Protocol):
    """One side of a tapped connection."""

    other: TapSide | None = None

    def __init__(self, recorded: list[bytes]) -> None:
        self._recorded = recorded
        self._waiting: list[bytes] = []

    def join(self, other: TapSide) -> None:
        """Pass everything on to *other*, including what has already arrived."""
        self.other = other
        for data in self._waiting:
            other.transport.write(data)  # type: ignore[union-attr]
        other.transport.registerProducer(self.transport, True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._recorded.append(data)
        if self.other is None:
            self._waiting.append(data)
        else:
            self.other.transport.write(data)  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.other.transport.loseWriteConnection()  # type: ignore[attr-defined]

    def writeConnectionLost(self) -> None:
        """Nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.other.transport.loseConnection()


class Tap(Factory):
    """Listens on one UNIX socket, forwards each connection to another, and records everything that crosses."""

    noisy = False

    def __init__(self, target: Path) -> None:
        self.crossed: list[bytes] = []
        self.sides: list[TapSide] = []
        self._target = target
        self.port: Any = None

    def buildProtocol(self, addr: object) -> TapSide:
        near = TapSide(self.crossed)
        self.sides.append(near)
        connecting: Any = UNIXClientEndpoint(reactor, str(self._target)).connect(
            Factory.forProtocol(lambda: TapSide(self.crossed))
        )

        def connected(far: TapSide) -> None:
            self.sides.append(far)
            far.join(near)
            near.join(far)

        connecting.addCallbacks(connected, lambda _: near.transport.abortConnection())  # type: ignore[union-attr]
        return near


@implementer(IBodyProducer)
class Body:
    """A request body of known length."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It has all been written."""

    def resumeProducing(self) -> None:
        """It has all been written."""

    def stopProducing(self) -> None:
        """It has all been written."""


class Gathering(Protocol):
    """A client that waits for given bytes.

    :ivar ended: fires when the connection has ended.
    """

    def __init__(self) -> None:
        self._received = b""
        self._wanted = b""
        self._waiting: Deferred[None] | None = None
        self.ended: Deferred[None] = Deferred()

    def until(self, wanted: bytes) -> Deferred[None]:
        """Fires when *wanted* has arrived."""
        self._wanted = wanted
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._look()
        return waiting

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)

    def _look(self) -> None:
        if self._waiting is not None and self._wanted in self._received:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)


class ChainCase(TestCase):
    """Both daemons in this process, and an upstream behind TLS.

    :ivar port: the gateway's; *loopback* the enclave's own.
    """

    timeout = 60
    #: Whether taps are between the hops. They pass every end of input on as a half-close.
    tapped = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits what it returns
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.addCleanup(shutil.rmtree, self.directory)
        authority = ThrowAwayAuthority()
        (self.directory / "ca.pem").write_bytes(authority.pem)
        identity = PrivateCertificate.loadPEM(authority.issue().pem)
        self.upstream_resource = self.resource()
        self.upstream = reactor.listenSSL(0, Site(self.upstream_resource), identity.options(), interface="127.0.0.1")
        self.addCleanup(self.upstream.stopListening)
        self.port, self.loopback = free_port(), free_port()
        self.services: dict[str, IService] = {}
        self.addCleanup(self.stop, "host")
        self.addCleanup(self.stop, "enclave")
        self.start("host")
        if self.tapped:
            self.to_relay = await self.tap("host", "host/5001.sock", "enclave")
        self.start("enclave")
        if self.tapped:
            self.to_enclave = await self.tap("enclave", "enclave/5000.sock", "host")
        self.agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))

    def resource(self) -> Any:
        """The resources of the upstream."""
        return Upstream()

    async def tap(self, owner: str, name: str, other: str) -> Tap:
        """Put a tap between *owner*'s socket *name* and the address where *other* expects it."""
        tap = Tap(self.directory / owner / name)
        place = self.directory / other / name
        place.parent.mkdir(parents=True, exist_ok=True)
        port = await UNIXServerEndpoint(reactor, str(place)).listen(tap)
        self.addCleanup(port.stopListening)
        tap.port = port
        return tap

    def configure(self, role: str, **more: object) -> str:
        """Write one daemon's configuration file; returns its path."""
        settings = {
            "transport.kind": "unix",
            "transport.directory": str(self.directory / (role if self.tapped else "both")),
            "host_proxy.port": self.port,
            "enclave.proxy_port": self.loopback,
            "egress.allow": ["localhost:*"],
            "egress.allow_addresses": ["127.0.0.0/8", "::1/128"],
            "tls.ca_file": str(self.directory / "ca.pem"),
            "limits.drain_timeout": 0.5,
            **{key.replace("__", "."): value for key, value in more.items()},
        }
        sections: dict[str, dict[str, object]] = {}
        for key, value in settings.items():
            section, name = key.split(".")
            sections.setdefault(section, {})[name] = value
        path = self.directory / f"{role}.json"
        path.write_text(json.dumps(sections), "utf-8")
        return str(path)

    def start(self, role: str, environ: Mapping[str, str] | None = None, **more: object) -> None:
        """Start one daemon's services in this process, each with a directory of its own."""
        module = nitroproxy.host.service if role == "host" else nitroproxy.enclave.service
        options = module.Options(environ or {})
        options.parseOptions(["--config", self.configure(role, **more)])
        service: Any = module.makeService(options)
        service.privilegedStartService()
        service.startService()
        self.services[role] = service

    async def stop(self, role: str) -> None:
        """Stop one daemon's services, if they run."""
        service: Any = self.services.pop(role, None)
        if service is not None:
            await service.stopService()
            await deferLater(reactor, 0, lambda: None)  # connections that were aborted end in the next turn

    def reload(self, role: str, **more: object) -> bool:
        """Have one daemon load another configuration; returns whether it did."""
        self.configure(role, **more)
        service: Any = self.services[role]
        successful: bool = service.reload()
        return successful

    def url(self, path: str) -> bytes:
        """The gateway's URL for the upstream's *path*."""
        return f"http://127.0.0.1:{self.port}/https://localhost:{self.upstream.getHost().port}{path}".encode()

    async def in_flight(self) -> dict[str, int]:
        """The requests and tunnels under way on gateway, enclave and relay, without this query."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/metrics".encode())
        page = (await readBody(response)).decode("utf-8")
        found = re.findall(r'nitroproxy_requests_in_flight{[^}]*hop="nitroproxy-([a-z]+)"[^}]*} ([0-9.]+)', page)
        asking = {"host": 1, "enclave": 1}
        return {hop: int(float(count)) - asking.get(hop, 0) for hop, count in found if hop not in ("logs", "health")}

    async def until(self, expected: Any, look: Callable[[], Awaitable[Any]]) -> None:
        """Poll until the result is *expected*; the timeout of the test bounds the wait."""
        while await look() != expected:
            await deferLater(reactor, 0.05, lambda: None)

    async def health(self) -> tuple[int, dict[str, Any]]:
        """The gateway's health."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/health".encode())
        return response.code, json.loads(await readBody(response))["checks"]

    def events(self) -> list[Mapping[str, Any]]:
        """Collect everything that is logged from now on, through Twisted's log and the access log's."""
        events: list[Mapping[str, Any]] = []
        observer = EventLog("DEBUG", [events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        def emit(log: EventLog, level: str, event: str, text: str, fields: dict[str, Any]) -> None:
            events.append({"event": event, "text": text, **fields})

        self.patch(EventLog, "emit", emit)
        return events
