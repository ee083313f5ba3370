"""The router of a listener whose connections have one destination, in whatever way it is reached.

An ingress listener on the host leads to a port of the enclave, one in the enclave to the application's.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Request
from nitroproxy.preface.proxy_protocol import Peers
from nitroproxy.proxy.opening import Passage
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Route


class PassageRouter:
    """Leads every connection to *endpoint*.

    :param destination: what it is called in logs: a host and a port.
    :param sends_header: it is told who the client is, in a header of the PROXY protocol before the first byte.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, destination: tuple[str, int], *, sends_header: bool = False
    ) -> None:
        self._endpoint = endpoint
        self._destination = destination
        self._sends_header = sends_header

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        if not isinstance(request, Passage):
            raise ProxyError(Kind.INTERNAL_ERROR, "internal error: a request where connections have one destination")
        record.host, record.port = self._destination
        header = request.header
        if header.peers is not None:
            record.peer = _source_of(header.peers)
        if not self._sends_header:
            return Dial(lambda identity: self._endpoint)

        def introduced(identity: Headers) -> IStreamClientEndpoint:
            _, request_id = identity[0]
            return IntroducedEndpoint(self._endpoint, header.with_id(request_id).to_bytes())

        return Dial(introduced)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: the destination is the configuration's."""


def _source_of(peers: Peers) -> IAddress:
    host, port = peers.source
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


@implementer(IStreamClientEndpoint)
class IntroducedEndpoint:
    """*endpoint*, whose connections begin with *introduction*."""

    def __init__(self, endpoint: IStreamClientEndpoint, introduction: bytes) -> None:
        self._endpoint = endpoint
        self._introduction = introduction

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and write the introduction before anything else is."""

        def introduce(protocol: IProtocol) -> IProtocol:
            protocol.transport.write(self._introduction)  # type: ignore[attr-defined]
            return protocol

        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(introduce)
