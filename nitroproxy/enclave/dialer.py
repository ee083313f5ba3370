"""From a destination to an endpoint: through the relay on the host, with TLS started here for https."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from nitroproxy.http1.messages import Headers
from nitroproxy.proxy.connect import ConnectEndpoint
from nitroproxy.target import Target
from nitroproxy.tls import TLSClient


class Dialer:
    """Knows the way out of the enclave.

    :param relay: the egress relay's endpoint.
    :param connect_timeout: seconds for a TLS handshake.
    """

    def __init__(
        self, reactor: IReactorTime, relay: IStreamClientEndpoint, tls: TLSClient, connect_timeout: float
    ) -> None:
        self._reactor = reactor
        self._relay = relay
        self._tls = tls
        self._connect_timeout = connect_timeout

    def tunnel(self, target: Target, identity: Headers) -> IStreamClientEndpoint:
        """A plain connection to *target*; *identity* is sent along to the relay."""
        return ConnectEndpoint(self._relay, target.authority, identity)

    def endpoint_for(self, key: Hashable, identity: Headers) -> IStreamClientEndpoint:
        """A connection to the `Target` *key* (its path aside), ready for HTTP: verified TLS for https."""
        assert isinstance(key, Target)
        tunnel = self.tunnel(key, identity)
        if key.scheme == "https":
            return self._tls.wrap(tunnel, key.host, self._connect_timeout, self._reactor)
        return tunnel
