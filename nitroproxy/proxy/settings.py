"""What listeners, exchanges and pools allow, and their timeouts: values that the composition roots make of the
configuration. Times in seconds, sizes in bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from twisted.internet.interfaces import IAddress

from nitroproxy.http1.messages import Limits
from nitroproxy.policy import ByPattern

_JITTER: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """How long an exchange waits. Times in seconds.

    :ivar response_timeout: from the request's last byte to the response's head, by destination.
    :ivar idle_timeout: without a byte either way while a body moves.
    :ivar tunnel_timeout: the same while an event stream is silent.
    :ivar min_body_rate: bytes a second that a client must send of its body on average, while it is not held back and
        beyond pauses of `idle_timeout`; 0: any.
    :ivar max_retries: connection attempts after the first.
    :ivar retry_delay: the most that all retries together wait; each waits twice as long as the one before.
    :ivar shortest_timeout: the shorter one of `idle_timeout` and `tunnel_timeout`.
    """

    response_timeout: ByPattern[float] = field(default_factory=lambda: ByPattern({}, 300.0))
    idle_timeout: float = 60.0
    tunnel_timeout: float = 3600.0
    min_body_rate: int = 0
    max_retries: int = 3
    retry_delay: float = 1.0
    shortest_timeout: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shortest_timeout", min(self.idle_timeout, self.tunnel_timeout))

    def delay_before(self, retry: int) -> float:
        """Seconds before the *retry*-th retry (from 1): its share, less a random part that leaves time to connect."""
        share = float(1 << (retry - 1)) / ((1 << self.max_retries) - 1)
        return self.retry_delay * share * _JITTER.uniform(0.4, 0.8)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many connections are kept and how long. Times in seconds.

    :ivar limits: of the responses' heads.
    :ivar connect_timeout: until a connection must be up, TLS included.
    :ivar idle_timeout: that an unused connection is kept.
    :ivar most: connections open at once; at the cap a request is refused.
    :ivar most_idle: unused connections kept for one key.
    """

    limits: Limits = field(default_factory=Limits)
    connect_timeout: float = 10.0
    idle_timeout: float = 30.0
    most: int = 4000
    most_idle: int = 128


class TunnelTimes(NamedTuple):
    """How long a tunnel may be silent, in seconds.

    :ivar silent: without a byte either way.
    :ivar unanswered: the same when the client sent last: it may be waiting for a response.
    :ivar idle: the same when the tunnel is half-closed, or one end does not take what the other has sent.
    """

    silent: float
    unanswered: float
    idle: float


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What a listener allows its clients. Times in seconds.

    :ivar connections: served at a time.
    :ivar together: served at a time by all listeners that share places (`nitroproxy.proxy.places`); at least
        *connections*.
    :ivar header_timeout: from a head's first byte to its last.
    :ivar idle_timeout: between requests, for the body of a request for one of our own pages, and in a tunnel that is
        half-closed or has bytes that one end does not take.
    :ivar tunnel_timeout: without a byte either way in any other tunnel.
    :ivar connect_timeout: until a CONNECT must have its connection.
    :ivar buffer_bytes: most that one connection holds of a body, each way.
    :ivar limits: of the requests' heads.
    :ivar exchange: for the requests that are forwarded.
    :ivar accepts: whether a peer may use the listener at all.
    :ivar peers_are_proxies: its peers connect for clients of theirs, so that one may have all of the connections.
    :ivar make_traceparent: give a W3C trace context to requests that come without one.
    :ivar names: what browsers may call this proxy, besides localhost and IP addresses; in lower case.
    :ivar rewrite_location: have redirects of requests in path form lead through this proxy again.
    """

    connections: int = 4000
    together: int = 0
    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    tunnel_timeout: float = 3600.0
    connect_timeout: float = 10.0
    buffer_bytes: int = 65536
    limits: Limits = field(default_factory=Limits)
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    accepts: Callable[[IAddress], bool] = lambda address: True
    peers_are_proxies: bool = False
    make_traceparent: bool = False
    names: frozenset[str] = frozenset()
    rewrite_location: bool = False

    def tunnel_times(self, host: str, port: int) -> TunnelTimes:
        """How long a tunnel to *host*:*port* may be silent."""
        silent = self.tunnel_timeout
        unanswered = max(silent, self.exchange.response_timeout.of(host, port))
        return TunnelTimes(silent, unanswered, min(self.idle_timeout, silent))
