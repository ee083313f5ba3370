"""What a role makes of a request: where it goes, or the failure it ends in.

The engine (`downstream`, `exchange`, `tunnel`) is the same for the gateway, the enclave proxy and the relay; a
`Router` is what makes them different.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.web.server import Site

from nitroproxy.http1.messages import Headers, Request
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.upstream import Pool


class Forward(NamedTuple):
    """Send the request on. A tuple, which costs less to make than a frozen dataclass: there is one for each request.

    :ivar pool: where connections to the next hop come from, and *key* which hop that is.
    :ivar target: the request-target for the next hop.
    :ivar host: the Host field for the next hop.
    :ivar ours: the next hop is one of ours: its Proxy-Status is trusted and noted; a destination's is not.
    :ivar application: the listener serves an application, and the request is for it: what browsers send to it, its
        redirects and its pages are its own business.
    """

    pool: Pool
    key: Hashable
    target: bytes
    host: bytes
    ours: bool = False
    application: bool = False


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to an endpoint and make the client's connection a tunnel to it.

    :ivar endpoint_for: makes it, given the fields that identify the request, for the next hop.
    """

    endpoint_for: Callable[[Headers], IStreamClientEndpoint]


@dataclass(frozen=True, slots=True)
class Local:
    """Answer from the resource tree of *site*.

    :ivar longest_body: bytes of a request's body that the resource is given; a longer one is refused.
    :ivar query: the resource is given the target's query, which with the path may be as long as a path.
    """

    site: Site
    longest_body: int = 65536
    query: bool = False


Route = Forward | Dial | Local


class Router(Protocol):
    """Decides for one role."""

    def route(self, request: Request, record: Record) -> Route:
        """Where *request* goes; the destination is noted in *record*.

        :raises ProxyError: when it goes nowhere.
        """
        ...

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """Do nothing when there may be a tunnel to *record*'s destination, which another router may have let in.

        :param address: the address that its connection leads to: the destination's, or the next hop's.
        :raises ProxyError: when there may not.
        """
        ...
