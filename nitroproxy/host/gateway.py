"""The gateway's routing: requests that name a destination go to the enclave; the others are local pages."""

from __future__ import annotations

from functools import partial
from typing import Final

from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.web.server import Site

from nitroproxy.http1.messages import Request
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Forward, Local, Route
from nitroproxy.proxy.upstream import Pool
from nitroproxy.target import parse_target

#: A page of the enclave's, which the gateway passes on: the enclave's document for a client's nonce.
ATTESTATION: Final = b"/enclave/attestation"

#: The only next hop of the gateway: the pool's key.
ENCLAVE = "enclave"


class GatewayRouter:
    """Routes everything that names a destination to the enclave; the enclave decides whether it may be reached."""

    def __init__(self, pool: Pool, enclave: IStreamClientEndpoint, site: Site) -> None:
        self._pool = pool
        self._enclave = enclave
        self._site = site

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        target = parse_target(request.method, request.target)
        if target is None:
            if request.target.partition(b"?")[0] == ATTESTATION and request.method in (b"GET", b"HEAD"):
                return Forward(self._pool, ENCLAVE, request.target, b"localhost", ours=True)
            return Local(self._site, query=True)
        origin = target.origin
        record.host, record.port = origin.host, origin.port
        if request.method == b"CONNECT":
            return Dial(partial(ConnectEndpoint, self._enclave, origin.authority))
        return Forward(self._pool, ENCLAVE, target.url, origin.host_field, ours=True)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: the enclave does the check."""
