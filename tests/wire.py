"""Connections without sockets for the engine's tests: a transport that remembers, an endpoint that the test drives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import ProxyError
from nitroproxy.http1.messages import Fields, Limits, Request
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.downstream import Downstream
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Forward, Route
from nitroproxy.proxy.settings import ExchangeSettings, ListenerSettings, PoolSettings
from nitroproxy.proxy.upstream import Pool


class Wire(StringTransport):
    """The transport of one protocol. Closing it takes effect when the test calls `settle`, as in a reactor."""

    def __init__(self, protocol: IProtocol, peer: IAddress | None = None) -> None:
        super().__init__(peerAddress=peer or IPv4Address("TCP", "192.0.2.1", 4321))
        self.protocol = protocol
        self.aborted = False
        self.half_closed = False
        self.closed = False
        self._half_closing = False
        protocol.makeConnection(self)

    def unregisterProducer(self) -> None:
        """As real transports do: harmless when there is none."""
        self.producer = None

    def pauseProducing(self) -> None:
        """As real transports do: harmless when it is being closed."""
        if not self.disconnecting:
            super().pauseProducing()

    def loseWriteConnection(self) -> None:
        """Half-close."""
        self.half_closed = True
        self._half_closing = True

    def abortConnection(self) -> None:
        """Close at once."""
        self.aborted = True
        self.disconnecting = True

    def settle(self) -> None:
        """Complete a close that was requested."""
        if self._half_closing and not self.closed:
            self._half_closing = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()
        if (self.aborted or (self.disconnecting and self.producer is None)) and not self.closed:
            self.closed = True
            reason = ConnectionAborted() if self.aborted else ConnectionDone()
            self.protocol.connectionLost(Failure(reason))

    def receive(self, data: bytes) -> None:
        """The peer has sent *data*."""
        self.protocol.dataReceived(data)
        self.settle()

    def end(self) -> None:
        """The peer has half-closed."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
            self.settle()
        else:
            self.lose(ConnectionDone())

    def lose(self, reason: Exception | None = None) -> None:
        """The connection breaks."""
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason or ConnectionLost()))

    def take(self) -> bytes:
        """What has been written since the last call."""
        written: bytes = self.value()
        self.clear()
        return written

    @property
    def paused(self) -> bool:
        """The protocol has paused reading."""
        return self.producerState == "paused"


@implementer(IProtocolFactory)
class Maker:
    """A factory without references from its protocols, so that a test can see what else keeps it alive."""

    def __init__(self, make: Callable[[], IProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> IProtocol:
        """See `IProtocolFactory`."""
        return self._make()

    def doStart(self) -> None:
        """See `IProtocolFactory`."""

    def doStop(self) -> None:
        """See `IProtocolFactory`."""


@implementer(IStreamClientEndpoint)
class WaitingEndpoint:
    """Collects attempts to connect until the test accepts or refuses them."""

    def __init__(self) -> None:
        self.waiting: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Wait for the test."""

        def cancel(_: object) -> None:
            self.cancelled += 1

        result: Deferred[IProtocol] = Deferred(cancel)
        self.waiting.append((protocolFactory, result))
        return result

    def accept(self) -> Wire:
        """Let the oldest attempt succeed."""
        factory, result = self.waiting.pop(0)
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 443))
        assert protocol is not None
        wire = Wire(protocol)
        result.callback(protocol)
        return wire

    def refuse(self, error: Exception) -> None:
        """Let the oldest attempt fail."""
        _, result = self.waiting.pop(0)
        result.errback(error)


class OneHop:
    """A listener that forwards everything to one `WaitingEndpoint`, on a clock that the test advances."""

    def __init__(
        self,
        route: Callable[[Request], Route] | None = None,
        *,
        limits: Limits | None = None,
        connections: int = 100,
        end_is_proof: bool = True,
        exchange: ExchangeSettings | None = None,
        tunnel_timeout: float = 3600.0,
    ) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.endpoint = WaitingEndpoint()
        self.pool = Pool(
            lambda key, identity: self.endpoint,
            self.deadlines,
            PoolSettings(most=10),
            end_is_proof=lambda key: end_is_proof,
        )
        self._route = route
        self.tunnel_refusal: ProxyError | None = None
        self.asked: list[tuple[Record, IAddress]] = []
        settings = ListenerSettings(
            connections=connections,
            tunnel_timeout=tunnel_timeout,
            limits=limits or Limits(),
            exchange=exchange or ExchangeSettings(),
        )
        self.factory = DownstreamFactory("nitroproxy-test", self, settings, self.deadlines)

    def route(self, request: Request, record: Record) -> Route:
        """Where the request goes: where the given function says, or on as it came."""
        if self._route is not None:
            return self._route(request)
        return Forward(self.pool, "next", request.target, b"next.example", ours=True)

    def set(self, **settings: Any) -> None:
        """Have the listener allow something else."""
        self.factory.settings = replace(self.factory.settings, **settings)

    def route_by_path(self) -> None:
        """From now on each path is a next hop of its own."""
        self._route = lambda request: Forward(self.pool, request.target, request.target, b"next.example")

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """Whether there may be a tunnel: as the test has set it."""
        self.asked.append((record, address))
        if self.tunnel_refusal is not None:
            raise self.tunnel_refusal

    def client(self) -> Wire:
        """A new client connection."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4321))
        assert isinstance(protocol, Downstream)
        return Wire(protocol)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


class Notes(Observer):
    """Collects the records that ended."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def ended(self, record: Record, now: float) -> None:
        """Remember it."""
        self.records.append(record)


def request(method: bytes, target: bytes) -> Request:
    """A request whose Host no router may trust."""
    return Request(method, target, Fields([(b"Host", b"liar.example")]))


def record() -> Record:
    """An empty record."""
    return Record(0.0, b"an-id")


GET = b"GET /thing HTTP/1.1\r\nHost: client.example\r\n\r\n"


def split_head(message: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """A message's start line, its headers by lower-case name, and the rest."""
    head, _, rest = message.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        headers[name.lower()] = value
    return start, headers, rest
