"""From a destination's name to a connection with a checked address: the relay's last step.

A name is looked up once. Every address that the lookup gives must pass the guard, or none is dialled; only these
addresses are dialled. So a name that leads to other addresses a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, TCPTimedOutError, TimeoutError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError, reason_of
from nitroproxy.policy import AddressGuard
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.sockets.options import set_tcp_options
from nitroproxy.vsock.attempt import Attempt

#: Seconds after which the next address is tried beside the one before (RFC 8305 section 5).
_STAGGER: Final = 0.25

#: A name to its addresses, as text, in the order of preference.
Lookup = Callable[[str], Awaitable[Sequence[str]]]


class Resolver:
    """Names to checked addresses.

    :param lookup: fails with `DNSLookupError` for a name without an address, with `ProxyError` when it cannot be known.
    :param timeout: seconds for one lookup.
    :ivar trouble: why the last lookup got no answer, for the health page; None when it got one.
    """

    def __init__(self, lookup: Lookup, guard: AddressGuard, deadlines: Deadlines, timeout: float) -> None:
        self._lookup = lookup
        self._guard = guard
        self._deadlines = deadlines
        self._timeout = timeout
        self.trouble: str | None = None

    def resolve(self, host: str) -> Deferred[list[str]]:
        """The addresses of *host*, all of them checked, families alternating (RFC 8305 section 4).

        Fails with `ProxyError`: `Kind.DNS_ERROR`, `Kind.DNS_TIMEOUT` or `Kind.ADDRESS_DENIED`. Cancelling it cancels
        the lookup.
        """
        try:
            ip_address(host)
        except ValueError:
            return Deferred.fromCoroutine(self._look_up(host)).addCallback(self._checked)
        return execute(self._checked, [host])

    def _checked(self, addresses: Sequence[str]) -> list[str]:
        for address in addresses:
            self.check(address)
        first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
        other = [address for address in addresses if address not in first]
        return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]

    def check(self, address: str) -> None:
        """Do nothing when *address* may be dialled.

        :raises ProxyError: `Kind.ADDRESS_DENIED`; `Kind.INTERNAL_ERROR` when the guard cannot tell.
        """
        try:
            self._guard.check(address)
        except OSError as error:
            raise ProxyError(Kind.INTERNAL_ERROR, f"this machine's own addresses cannot be read: {error}") from error

    async def _look_up(self, host: str) -> Sequence[str]:
        late = False

        def time_out() -> None:
            nonlocal late
            late = True
            looking.cancel()

        async def look() -> Sequence[str]:
            return await self._lookup(host)

        looking: Deferred[Sequence[str]] = Deferred.fromCoroutine(look())
        deadline = self._deadlines.after(self._timeout, time_out)
        try:
            addresses = await looking
        except DNSLookupError as error:
            self.trouble = None  # That there is no such name is an answer.
            raise ProxyError(Kind.DNS_ERROR, f"{host} could not be resolved: {reason_of(error)}") from error
        except ProxyError as error:
            self.trouble = error.detail
            raise
        except Exception as error:
            if not late:
                raise
            self.trouble = f"a lookup took over {self._timeout:g} seconds"
            raise ProxyError(Kind.DNS_TIMEOUT, f"{host} was not resolved within {self._timeout:g} seconds") from error
        finally:
            deadline.cancel()
        self.trouble = None
        if not addresses:
            raise ProxyError(Kind.DNS_ERROR, f"{host} has no address")
        return addresses


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """Resolves, checks and dials *host*:*port*; fails with `ProxyError`."""

    def __init__(
        self, reactor: IReactorTCP, resolver: Resolver, deadlines: Deadlines, host: str, port: int, timeout: float
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._deadlines = deadlines
        self._host = host
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the first of the checked addresses that answers."""

        def dial(addresses: list[str]) -> Deferred[IProtocol]:
            dialling = self._dial(addresses, protocolFactory)
            return dialling.addCallbacks(_connected, self._failed)

        return self._resolver.resolve(self._host).addCallback(dial)

    def _dial(self, addresses: list[str], factory: IProtocolFactory) -> Deferred[IProtocol]:
        def attempt(address: str) -> Deferred[IProtocol]:
            attempt = Attempt(factory)
            self._reactor.connectTCP(address, self._port, attempt, self._timeout)
            return attempt.result

        return attempt(addresses[0]) if len(addresses) == 1 else _Race(addresses, attempt, self._deadlines).winner

    def _failed(self, failure: Failure) -> Failure:
        destination, error = f"{self._host}:{self._port}", failure.value
        if isinstance(error, ConnectionRefusedError):
            return Failure(ProxyError(Kind.CONNECTION_REFUSED, f"{destination} refused the connection"))
        if isinstance(error, TimeoutError | TCPTimedOutError):
            return Failure(ProxyError(Kind.CONNECTION_TIMEOUT, f"{destination} did not answer"))
        if isinstance(error, ConnectError | OSError):
            return Failure(ProxyError(Kind.UNREACHABLE, f"{destination}: {reason_of(error)}"))
        return failure


def _connected(protocol: IProtocol) -> IProtocol:
    set_tcp_options(protocol.transport)  # type: ignore[attr-defined]
    return protocol


class _Race:
    """Connection attempts, each begun when the one before fails or is slow; the first that succeeds wins (RFC 8305
    section 5)."""

    def __init__(self, addresses: list[str], dial: Callable[[str], Deferred[IProtocol]], deadlines: Deadlines) -> None:
        self.winner: Deferred[IProtocol] = Deferred(self._cancel)
        self._waiting = addresses
        self._dial = dial
        self._deadlines = deadlines
        self._running: list[Deferred[IProtocol]] = []
        self._stagger: Deadline | None = None
        self._next()

    def _next(self) -> None:
        self._stop_stagger()
        if not self._waiting or self.winner.called:
            return
        attempt = self._dial(self._waiting.pop(0))
        self._running.append(attempt)
        if self._waiting:
            self._stagger = self._deadlines.after(_STAGGER, self._next)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _won(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._running.remove(attempt)
        if self.winner.called:
            protocol.transport.abortConnection()  # type: ignore[attr-defined]
            return
        self.winner.callback(protocol)
        self._cancel(self.winner)

    def _lost(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        self._running.remove(attempt)
        if self.winner.called:
            return
        if self._waiting:
            self._next()
        elif not self._running:
            self.winner.errback(failure)

    def _cancel(self, _: object) -> None:
        self._waiting = []
        self._stop_stagger()
        for attempt in list(self._running):
            attempt.cancel()

    def _stop_stagger(self) -> None:
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
