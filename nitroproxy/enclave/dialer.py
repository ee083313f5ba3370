"""From a destination to an endpoint: through the relay on the host, with TLS started here for https."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IStreamClientEndpoint

from nitroproxy.http1.messages import Headers
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.target import Origin
from nitroproxy.tls.client import TLSClient


class Dialer:
    """Makes the endpoints of destinations.

    :param relay: the egress relay's endpoint.
    :param tls: starts TLS with destinations.
    """

    def __init__(self, relay: IStreamClientEndpoint, tls: TLSClient) -> None:
        self._relay = relay
        self._tls = tls

    def tunnel(self, origin: Origin, identity: Headers) -> IStreamClientEndpoint:
        """A plain connection to *origin*; *identity* is sent along to the relay."""
        return ConnectEndpoint(self._relay, origin.authority, identity)

    @staticmethod
    def verifies_end(key: Hashable) -> bool:
        """Whether the end of input from *key* proves that the destination has ended it: TLS does (close_notify)."""
        return isinstance(key, Origin) and key.scheme == "https"

    def endpoint_for(self, key: Hashable, identity: Headers) -> IStreamClientEndpoint:
        """A connection to the `Origin` *key*, ready for HTTP: verified TLS for https."""
        assert isinstance(key, Origin)
        tunnel = self.tunnel(key, identity)
        if key.scheme == "https":
            return self._tls.wrap(tunnel, key.host, key.port)
        return tunnel
