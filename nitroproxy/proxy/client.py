"""The two sides of one request, as each knows the other: the client that asked, and what carries its request out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import ProxyError
from nitroproxy.proxy.pace import Pace, Throttle
from nitroproxy.proxy.pinned import PinnedConnections
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.proxy.tunnel import Side


class Client(Protocol):
    """A client's connection, to what carries its request out.

    :ivar response: writes what this client is answered.
    :ivar pace: how fast it reads that; follows where the response comes from.
    :ivar throttle: stops its request's body; the producer of the connection that this goes to.
    :ivar pinned: the upstream connections that belong to it alone.
    """

    transport: StreamTransport
    response: ResponseWriter
    pace: Pace
    throttle: Throttle
    pinned: PinnedConnections

    def take_body(self) -> None:
        """The request's body can be taken now."""

    def answering(self, status: int) -> None:
        """The response's head is about to be written."""

    def send_body(self, data: bytes) -> None:
        """A piece of the response's body, not empty."""

    def exchange_done(self, request_complete: bool) -> None:
        """The whole response has been handed over."""

    def fail(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure, or if a response has begun break it off (never complete it)."""

    def send_problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead of a response."""

    def check_tunnel(self, address: IAddress) -> None:
        """Do nothing when there may be a tunnel by a connection to *address*: the policy may have changed meanwhile.

        :raises ProxyError: when there may not.
        """

    def become_tunnel(self, upstream: StreamTransport, join: Callable[[Side], None], rest: bytes) -> None:
        """The head has been written: from here on the connection is a tunnel to *upstream*.

        :param join: makes *upstream*'s protocol a side of it.
        :param rest: what has come from *upstream* already.
        """

    def abort(self) -> None:
        """End the connection at once, visibly."""


class ClientExchange(Protocol):
    """What carries a request out for a `Client`: an `Exchange`, a `LocalExchange` or a `Dialling`."""

    @property
    def wants_body(self) -> bool: ...
    def start(self) -> None: ...
    def request_data(self, data: bytes) -> None: ...
    def request_end(self) -> None: ...
    def abandon(self) -> None: ...
