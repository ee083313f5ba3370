"""What listeners, exchanges and pools allow, and their timeouts: values that the composition roots make of the
configuration. Times in seconds, sizes in bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.interfaces import IAddress

from nitroproxy.http1.messages import Limits

_JITTER: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """How patient an exchange is. Times in seconds.

    :ivar response_timeout: from the request's last byte to the response's head.
    :ivar idle_timeout: without a byte either way while a body moves.
    :ivar min_body_rate: bytes a second that a client must send of its body while it is not held back; 0: any.
    :ivar max_retries: connection attempts after the first.
    :ivar retry_delay: the longest that all of them take together; each waits twice as long as the one before.
    """

    response_timeout: float = 60.0
    idle_timeout: float = 60.0
    min_body_rate: int = 0
    max_retries: int = 3
    retry_delay: float = 1.0

    def delay_before(self, retry: int) -> float:
        """Seconds before the *retry*-th retry (from 1): its share, less some at random to leave time to connect."""
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


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What a listener allows its clients. Times in seconds.

    :ivar connections: served at a time.
    :ivar together: served at a time by all listeners that share places (`nitroproxy.proxy.places`); at least
        *connections*.
    :ivar header_timeout: from a head's first byte to its last.
    :ivar idle_timeout: between requests, and without a byte either way in a tunnel.
    :ivar buffer_bytes: most that one connection holds of a body, each way.
    :ivar accepts: whether a peer may use the listener at all.
    :ivar make_traceparent: give a W3C trace context to requests that come without one.
    :ivar names: what browsers may call this proxy, besides localhost and IP addresses; in lower case.
    :ivar rewrite_location: have redirects of requests in path form lead through this proxy again.
    """

    connections: int = 4000
    together: int = 0
    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    connect_timeout: float = 10.0
    buffer_bytes: int = 65536
    limits: Limits = field(default_factory=Limits)
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    accepts: Callable[[IAddress], bool] = lambda address: True
    make_traceparent: bool = False
    names: frozenset[str] = frozenset()
    rewrite_location: bool = False
