"""Requests through the proxy in the path form, ``<proxy>/<target URL>``, with treq, and a count of what went over.

It knows no case. Redirects are not followed, requests are not repeated, and a body is kept whole only if a case asks
for that, or if it is a problem document.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from typing import Protocol as Interface

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP, IReactorTime
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

_MOST_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 15
_PROBLEM: Final = "application/problem+json"
#: Bytes of a problem document, at most.
_LONGEST_PROBLEM: Final = 16 * 1024


class DemoReactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
    """The interfaces of a reactor that the demonstration uses."""


class Clock(Interface):
    """Returns the time in seconds."""

    def __call__(self) -> float: ...


@dataclass
class Traffic:
    """What one case has sent and received so far; kept apart from its verdict, so that a failure shows it too.

    :ivar status: the last answer's status.
    :ivar size: bytes of bodies, both ways.
    :ivar latencies: durations in milliseconds that the case wants in the report.
    """

    status: int | None = None
    size: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Head:
    """An answer's status and headers."""

    status: int
    headers: Headers

    def header(self, name: str) -> str:
        """The last value of the header *name*, or an empty string."""
        return (self.headers.getRawHeaders(name) or [""])[-1]

    @property
    def is_problem(self) -> bool:
        """Whether the body is a problem document (RFC 9457)."""
        return self.header("Content-Type").partition(";")[0].strip().lower() == _PROBLEM


@dataclass(frozen=True)
class Answer:
    """An answer.

    :ivar body: the whole body if it was fetched, or if it is a problem document; empty if it went to a collector.
    """

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status

    def json(self) -> Any:
        """The body as JSON.

        :raises ValueError: it is not JSON.
        """
        return json.loads(self.body)


class Gateway:
    """The way to the proxy: one pool of connections for all cases.

    :param proxy: the proxy's URL, without a slash at its end.
    """

    def __init__(self, reactor: DemoReactor, proxy: str) -> None:
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = _MOST_CONNECTIONS
        self._pool.cachedConnectionTimeout = _IDLE_SECONDS
        self._pool.retryAutomatically = False
        self.proxy = proxy
        self.reactor = reactor
        self.http = HTTPClient(Agent(reactor, pool=self._pool))

    def close(self) -> Deferred[object]:
        """Close what is idle; fires when it is closed."""
        closed: Deferred[object] = self._pool.closeCachedConnections()
        return closed


class Client:
    """One case's view of the gateway."""

    def __init__(self, gateway: Gateway, traffic: Traffic) -> None:
        self._gateway = gateway
        self._traffic = traffic
        self.clock: Clock = gateway.reactor.seconds

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Send one request for *url* through the proxy and collect the answer."""
        pieces: list[bytes] = []
        answer = await self.transfer(method, url, pieces.append, headers=headers, body=body)
        return Answer(answer.head, b"".join(pieces))

    async def transfer(
        self,
        method: str,
        url: str,
        collector: Callable[[bytes], object],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Send one request for *url* through the proxy; *collector* gets each piece of the answer as it arrives.

        The request body is sent piece by piece, no faster than the proxy takes it.
        """
        problem = b""

        def collect(data: bytes) -> None:
            nonlocal problem
            self._traffic.size += len(data)
            if head.is_problem:
                problem = (problem + data)[:_LONGEST_PROBLEM]
            collector(data)

        response = await self._gateway.http.request(
            method,
            f"{self._gateway.proxy}/{url}",
            headers=Headers({name: [value] for name, value in (headers or {}).items()}),
            data=io.BytesIO(body) if body else None,
            allow_redirects=False,
            unbuffered=True,
        )
        self._traffic.status = response.code
        self._traffic.size += len(body)
        head = Head(response.code, response.headers)
        await response.collect(collect)
        return Answer(head, problem)

    def aside(self) -> Client:
        """A client whose traffic does not count as the case's, such as for the upstream's counters."""
        return Client(self._gateway, Traffic())

    def took(self, milliseconds: float) -> None:
        """Put the duration of one of many requests into the report."""
        self._traffic.latencies.append(milliseconds)
