"""From a name to a checked address to a connection: the relay's last step (S12, F11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.dial import CheckedEndpoint, Resolver
from nitroproxy.policy import AddressGuard
from nitroproxy.proxy.deadlines import Deadlines


class DialTests(SynchronousTestCase):
    """Names with made-up addresses, a reactor that connects nowhere."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.deadlines = Deadlines(self.reactor)
        self.names: dict[str, Sequence[str] | Exception] = {}
        self.slow: dict[str, Deferred[Sequence[str]]] = {}
        self.looked_up: list[str] = []
        guard = AddressGuard([], frozenset)
        self.resolver = Resolver(self.lookup, guard, self.deadlines, 5.0)

    async def lookup(self, host: str) -> Sequence[str]:
        self.looked_up.append(host)
        if host in self.slow:
            return await self.slow[host]
        answer = self.names[host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def resolve(self, host: str) -> Deferred[list[str]]:
        return self.resolver.resolve(host)

    def refusal(self, deferred: Deferred[Any]) -> ProxyError:
        error: ProxyError = self.failureResultOf(deferred, ProxyError).value
        return error

    def dial(self, host: str) -> Deferred[Any]:
        factory = Factory.forProtocol(Protocol)
        return CheckedEndpoint(self.reactor, self.resolver, self.deadlines, host, 443, 9.0).connect(factory)

    def dialled(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def pass_time(self, seconds: float) -> None:
        self.reactor.pump([0.05] * round(seconds / 0.05))

    def test_own_addresses_unknown(self) -> None:
        """Where the guard cannot tell, nothing is dialled."""

        def own_addresses() -> frozenset[str]:
            raise OSError(24, "Too many open files")

        resolver = Resolver(self.lookup, AddressGuard([], own_addresses), self.deadlines, 5.0)
        error = self.refusal(resolver.resolve("192.0.43.8"))
        self.assertIs(error.kind, Kind.INTERNAL_ERROR)
        self.assertIn("Too many open files", error.detail)

    def test_addresses(self) -> None:
        """All addresses of a name come back, families in turn (RFC 8305)."""
        self.names["a.example"] = ["2606:4700::1", "2606:4700::2", "1.1.1.1", "1.0.0.1"]
        self.assertEqual(
            self.successResultOf(self.resolve("a.example")), ["2606:4700::1", "1.1.1.1", "2606:4700::2", "1.0.0.1"]
        )

    def test_one_bad_address_refuses_all(self) -> None:
        """A name with one internal address is refused, wherever in the answer that stands."""
        for addresses in (["10.0.0.1"], ["1.1.1.1", "169.254.169.254"], ["::ffff:1.1.1.1", "1.1.1.1"]):
            self.names["rebound.example"] = addresses
            self.assertIs(self.refusal(self.dial("rebound.example")).kind, Kind.ADDRESS_DENIED)
        self.assertEqual(self.dialled(), [])

    def test_literal(self) -> None:
        """An address is not looked up, and checked all the same."""
        self.assertEqual(self.successResultOf(self.resolve("1.1.1.1")), ["1.1.1.1"])
        self.assertIs(self.refusal(self.resolve("127.0.0.1")).kind, Kind.ADDRESS_DENIED)
        self.assertIs(self.refusal(self.resolve("::1")).kind, Kind.ADDRESS_DENIED)
        self.assertEqual(self.looked_up, [])

    def test_no_such_name(self) -> None:
        """A name that does not exist is no trouble of the resolver's; that its servers fail is."""
        self.names["no.example"] = DNSLookupError("no such name")
        self.assertIs(self.refusal(self.resolve("no.example")).kind, Kind.DNS_ERROR)
        self.assertIsNone(self.resolver.trouble)
        self.names["no.example"] = ProxyError(Kind.DNS_ERROR, "the name servers failed")
        self.assertIn("servers failed", self.refusal(self.resolve("no.example")).detail)
        self.assertIn("servers failed", str(self.resolver.trouble))
        self.names["no.example"] = ["1.1.1.1"]
        self.successResultOf(self.resolve("no.example"))
        self.assertIsNone(self.resolver.trouble)
        self.names["no.example"] = []
        self.assertIs(self.refusal(self.resolve("no.example")).kind, Kind.DNS_ERROR)

    def test_slow_name(self) -> None:
        """A slow name is given up at the deadline and holds up no other."""
        self.slow["slow.example"] = Deferred()
        self.names["a.example"] = ["1.1.1.1"]
        slow = self.resolve("slow.example")
        self.successResultOf(self.resolve("a.example"))
        self.pass_time(4.9)
        self.assertNoResult(slow)
        self.pass_time(0.3)
        self.assertIs(self.refusal(slow).kind, Kind.DNS_TIMEOUT)
        self.assertIn("5 seconds", str(self.resolver.trouble))

    def test_abandoned(self) -> None:
        """The lookup of a client that has gone is cancelled, and is no trouble of the resolver's."""
        self.slow["slow.example"] = Deferred()
        connecting = self.dial("slow.example")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.slow["slow.example"].called)
        self.assertIsNone(self.resolver.trouble)
        self.assertEqual(self.dialled(), [])

    def test_busy_resolver(self) -> None:
        """A lookup that gave way to newer ones fails as it did, and shows as the resolver's trouble."""
        self.names["a.example"] = ProxyError(Kind.DNS_TIMEOUT, "a.example was not looked up: busy")
        self.assertIs(self.refusal(self.resolve("a.example")).kind, Kind.DNS_TIMEOUT)
        self.assertIn("busy", str(self.resolver.trouble))

    def test_dials_what_it_checked(self) -> None:
        """One lookup; the address dialled is the one that was checked, not the name."""
        self.names["a.example"] = ["1.1.1.1"]
        self.dial("a.example")
        self.names["a.example"] = ["127.0.0.1"]
        self.assertEqual(self.dialled(), [("1.1.1.1", 443)])
        self.assertEqual(self.looked_up, ["a.example"])

    def test_second_address(self) -> None:
        """The next address is tried when one fails, and beside one that is slow; the loser is let go."""
        self.names["a.example"] = ["1.1.1.1", "1.0.0.1", "8.8.8.8"]
        connecting = self.dial("a.example")
        self.assertEqual(self.dialled(), [("1.1.1.1", 443)])
        self.fail_attempt(0, ConnectionRefusedError())
        self.assertEqual(self.dialled()[1:], [("1.0.0.1", 443)])
        self.pass_time(0.3)
        self.assertEqual(self.dialled()[2:], [("8.8.8.8", 443)])
        self.assertNoResult(connecting)
        factory = self.reactor.tcpClients[2][2]
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        self.assertIsInstance(self.successResultOf(connecting), Protocol)
        self.assertEqual(self.reactor.connectors[1].stoppedConnecting, True)

    def fail_attempt(self, number: int, error: Exception) -> None:
        *_, factory = self.reactor.tcpClients[number][:3]
        factory.clientConnectionFailed(self.reactor.connectors[number], Failure(error))

    def test_failures(self) -> None:
        """What a connection fails with is told in the proxy's terms, by the name that was asked for."""
        self.names["a.example"] = ["1.1.1.1"]
        for number, (error, kind) in enumerate(
            (
                (ConnectionRefusedError(), Kind.CONNECTION_REFUSED),
                (TimeoutError(), Kind.CONNECTION_TIMEOUT),
                (NoRouteError(113, "No route to host"), Kind.UNREACHABLE),
                (ConnectBindError(24, "Too many open files"), Kind.UNREACHABLE),
                (OSError(101, "Network is unreachable"), Kind.UNREACHABLE),
            )
        ):
            connecting = self.dial("a.example")
            self.fail_attempt(number, error)
            refusal = self.refusal(connecting)
            self.assertIs(refusal.kind, kind)
            self.assertIn("a.example:443", refusal.detail)

    def test_cancel(self) -> None:
        """Cancelling stops every attempt."""
        self.names["a.example"] = ["1.1.1.1", "1.0.0.1"]
        connecting = self.dial("a.example")
        self.pass_time(0.3)
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual([connector.stoppedConnecting for connector in self.reactor.connectors], [True, True])
