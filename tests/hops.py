"""Two real hops of ours between hostile ends, in memory and on a clock that the test advances.

The gateway and the enclave proxy are the engine's own listeners and pools. Between them are pipes that behave as UNIX
and vsock sockets do: an abort reads as an end of input at the other end, and only the kernel (here: `Pipe.peer_gone`)
knows that it was one. The test plays the client and the destination: they send anything, and leave at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from nitroproxy.http1.messages import Headers, Request
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.downstream import Downstream
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Forward, Route
from nitroproxy.proxy.settings import ListenerSettings, PoolSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.target import Target, parse_target
from tests.wire import Notes, WaitingEndpoint, Wire


class Pipe(Wire):
    """One end of a connection between two hops; what is written is carried by `TwoHops.settle`.

    :ivar peer_gone: the other end has closed both directions.
    """

    def __init__(self, protocol: IProtocol) -> None:
        self.other: Pipe | None = None
        self.peer_gone = False
        self._told_of_end = False
        super().__init__(protocol, UNIXAddress(b""))

    def carry(self) -> bool:
        """Deliver to the other end what was written here, and the end if any; returns whether anything moved."""
        other, data = self.other, self.take()
        assert other is not None
        if data and not other.closed:
            other.protocol.dataReceived(data)
        self.settle()
        if self.closed:
            other.peer_gone = True
        if (self.closed or self.half_closed) and not self._told_of_end:
            self._told_of_end = True
            if not other.closed:
                other.end()
            return True
        return bool(data)


@implementer(IStreamClientEndpoint)
class PipeEndpoint:
    """Connects to a listener by a pipe."""

    def __init__(self, hops: TwoHops, factory: DownstreamFactory) -> None:
        self._hops = hops
        self._factory = factory

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect at once."""
        accepted = self._factory.buildProtocol(UNIXAddress(b""))
        dialled = protocolFactory.buildProtocol(UNIXAddress(b""))
        assert accepted is not None and dialled is not None
        near, far = Pipe(dialled), Pipe(accepted)
        near.other, far.other = far, near
        self._hops.pipes += [near, far]
        return succeed(dialled)


class _Router:
    """The router of a minimal role: returns where a request with a target goes."""

    def __init__(self, decide: Callable[[Request, Target], Route]) -> None:
        self._decide = decide

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router`."""
        target = parse_target(request.method, request.target)
        assert target is not None, "the tests ask for destinations only"
        record.host, record.port = target.origin.host, target.origin.port
        return self._decide(request, target)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """Everything is allowed."""


class TwoHops:
    """Gateway and enclave.

    :ivar destinations: the attempts to connect, by the host that they are for, each to be accepted by the test.
    :ivar notes: the records of each hop, gateway first.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.pipes: list[Pipe] = []
        self._ends: list[Wire] = []
        self.destinations: dict[str, WaitingEndpoint] = {}
        self.notes = Notes(), Notes()
        self.enclave_pool = self._pool(self._destination)
        self.enclave = self._listener("nitroproxy-enclave", self._leave_enclave, self.notes[1], settings)
        self.to_enclave = PipeEndpoint(self, self.enclave)
        self.gateway_pool = self._pool(lambda key: self.to_enclave)
        self.gateway = self._listener("nitroproxy-host", self._leave_gateway, self.notes[0], settings)

    def _pool(self, endpoint_for: Callable[[Hashable], IStreamClientEndpoint]) -> Pool:
        def endpoint(key: Hashable, identity: Headers) -> IStreamClientEndpoint:
            return endpoint_for(key)

        return Pool(endpoint, self.deadlines, PoolSettings(), end_is_proof=lambda key: False)

    def _listener(self, hop: str, decide: Any, notes: Notes, settings: dict[str, Any]) -> DownstreamFactory:
        return DownstreamFactory(hop, _Router(decide), ListenerSettings(**settings), self.deadlines, notes)

    def _destination(self, key: Hashable) -> WaitingEndpoint:
        return self.destinations.setdefault(str(key), WaitingEndpoint())

    def _leave_enclave(self, request: Request, target: Target) -> Route:
        host = target.origin.host
        if request.method == b"CONNECT":
            return Dial(lambda identity: self._destination(host))
        return Forward(self.enclave_pool, host, target.path, target.origin.host_field)

    def _leave_gateway(self, request: Request, target: Target) -> Route:
        if request.method == b"CONNECT":
            raise AssertionError("tunnels are tried on the enclave's listener")
        return Forward(self.gateway_pool, "enclave", target.url, target.origin.host_field, ours=True)

    def client(self, listener: DownstreamFactory | None = None) -> Wire:
        """A client of the gateway, or of another listener."""
        protocol = (listener or self.gateway).buildProtocol(IPv4Address("TCP", "192.0.2.1", 4321))
        assert isinstance(protocol, Downstream)
        return self._end(Wire(protocol))

    def _end(self, wire: Wire) -> Wire:
        self._ends.append(wire)
        return wire

    def ask(self, client: Wire, request: bytes) -> None:
        """Have *client* send *request*, and deliver it."""
        client.receive(request)
        self.settle()

    def accept(self, host: str) -> Wire:
        """Let the oldest attempt to connect to *host* succeed."""
        wire = self._end(self.destinations[host].accept())
        self.settle()
        return wire

    def say(self, destination: Wire, data: bytes) -> None:
        """Have a destination send *data*, if it is still connected, and deliver it."""
        if not destination.closed:
            destination.receive(data)
        self.settle()

    def settle(self) -> None:
        """Deliver everything between the hops until nothing moves, and complete pending closes."""
        moved = True
        while moved:
            for wire in self._ends:
                wire.settle()
            moved = any([pipe.carry() for pipe in self.pipes])

    def pass_time(self, seconds: float) -> None:
        """Advance the clock in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.settle()

    @property
    def in_flight(self) -> tuple[int, int, int]:
        """The clients with something under way at gateway and enclave, and destinations outside the pools."""
        busy = [sum(one.in_use for one in factory.connections) for factory in (self.gateway, self.enclave)]
        return busy[0], busy[1], self.enclave_pool.open - self.enclave_pool.idle
