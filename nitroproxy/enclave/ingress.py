"""Routing for clients from outside, whose TLS ends in the enclave: the application, and with a certificate the proxy.

Whoever reaches the host reaches this listener. Nothing else of the enclave is served here: no health, no metrics, none
of the pages for applications in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.web.server import Site

from nitroproxy.enclave.pages import ATTESTATION
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Forward, Local, Route, Router
from nitroproxy.proxy.upstream import Pool
from nitroproxy.target import parse_target

#: What a request for the application is noted as: no destination of the proxy's has this scheme.
APPLICATION: Final = "application"


@dataclass(frozen=True)
class Application:
    """The application in the enclave.

    :ivar pool: connections to it; it is the only key.
    :ivar place: its address and port, for the log.
    """

    pool: Pool
    place: tuple[str, int]


class IngressRouter:
    """Routes what comes from outside.

    :param site: the page about attestation.
    :param application: None: there is none.
    :param proxy: routes for clients with a certificate; None: for nobody. Then a path that looks like a URL is the
        application's like any other.
    """

    def __init__(self, site: Site, application: Application | None, proxy: Router | None) -> None:
        self._site = site
        self._application = application
        self._proxy = proxy

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        if request.target.partition(b"?")[0] == ATTESTATION:
            return Local(self._site, query=True)
        if request.method == b"CONNECT" or not request.target.startswith((b"/", b"*")):
            return self._of_proxy(request, record)
        if self._proxy is not None and parse_target(request.method, request.target) is not None:
            return self._of_proxy(request, record)
        if self._application is None:
            return Local(self._site)
        record.scheme = APPLICATION
        record.host, record.port = self._application.place
        host = request.fields.get(b"host") or b""
        return Forward(self._application.pool, APPLICATION, request.target, host, application=True)

    def _of_proxy(self, request: Request, record: Record) -> Route:
        """The proxy's route: without a certificate nobody has one, or this were a proxy for all the world."""
        if self._proxy is None:
            raise ProxyError(Kind.PEER_DENIED, "this listener proxies for nobody (ingress.client_ca_file)")
        if not record.certified:
            raise ProxyError(Kind.PEER_DENIED, "this listener proxies for clients with a certificate only")
        return self._proxy.route(request, record)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`."""
        if record.scheme == APPLICATION:
            return
        if self._proxy is None or not record.certified:
            raise ProxyError(Kind.PEER_DENIED, "this listener proxies for clients with a certificate only")
        self._proxy.check_tunnel(record, address)
