"""Ports in the enclave that lead to one destination each, for applications that know no proxy (`enclave.forwards`).

They are listeners of the proxy as its others are: only the destination is known before the client has said anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IAddress, IStreamClientEndpoint

from nitroproxy.config.ends import EnclaveForward
from nitroproxy.config.kinds import destination
from nitroproxy.enclave.dialer import Dialer
from nitroproxy.http1.messages import Headers, Request
from nitroproxy.policy import Policy
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Route
from nitroproxy.target import Origin
from nitroproxy.tls.client import TLSClient


class ForwardRouter:
    """Routes every connection of one forward to its destination, within the policy.

    :param origin: the destination.
    :param tls: starts TLS with it; None: it gets the application's bytes.
    """

    def __init__(self, policy: Policy, dialer: Dialer, origin: Origin, tls: TLSClient | None) -> None:
        self._policy = policy
        self._dialer = dialer
        self._origin = origin
        self._tls = tls

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        record.host, record.port = self._origin.host, self._origin.port
        self._policy.check(record.host, record.port)
        return Dial(self._endpoint_for)

    def _endpoint_for(self, identity: Headers) -> IStreamClientEndpoint:
        tunnel = self._dialer.tunnel(self._origin, identity)
        return tunnel if self._tls is None else self._tls.wrap(tunnel, self._origin.host, self._origin.port)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`; the address is the relay's."""
        self._policy.check(record.host, record.port)


def forward_routers(
    forwards: Sequence[EnclaveForward], policy: Policy, dialer: Dialer, make_tls: Callable[[], TLSClient]
) -> list[ForwardRouter]:
    """A router for each of *forwards*.

    :param make_tls: makes what starts TLS; called if one of them needs it.
    """
    tls = make_tls() if any(forward.tls for forward in forwards) else None
    return [
        ForwardRouter(policy, dialer, Origin("https", *destination(forward.to)), tls if forward.tls else None)
        for forward in forwards
    ]
