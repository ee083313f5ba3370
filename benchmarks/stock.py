"""The baseline: the same chain built from Twisted's own parts, each as its documentation shows it.

``python -m benchmarks.stock gateway PORT ENCLAVE`` is a twisted.web Resource with an Agent over a UNIX socket;
``enclave PATH RELAY CA`` is the same with an Agent that starts TLS through the relay; ``relay PATH PORT`` is
twisted.protocols.portforward. Both Agents keep connections alive, and no access log is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.portforward import ProxyFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

#: Hop-by-hop fields (RFC 9110 section 7.6.1), and fields that each side sets itself.
_HOP_BY_HOP = (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"host")

reactor: Any = global_reactor


class _Copy(Protocol):
    """Writes a response's body to the client's request, with its backpressure."""

    transport: Any

    def __init__(self, request: Request, done: Deferred[None]) -> None:
        self._request = request
        self._done = done

    def connectionMade(self) -> None:
        self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._request.unregisterProducer()
        self._done.callback(None)


class Forwarder(Resource):
    """Answers with the response that *agent* receives.

    :param url_of: returns the URL to request for a path.
    """

    isLeaf = True

    def __init__(self, agent: Agent, url_of: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._agent = agent
        self._url_of = url_of

    def render(self, request: Request) -> int:
        """See `twisted.web.resource.IResource`."""
        headers = Headers()
        for name, values in request.requestHeaders.getAllRawHeaders():
            if name.lower() not in (*_HOP_BY_HOP, b"content-length"):
                headers.setRawHeaders(name, values)
        body = FileBodyProducer(request.content) if request.method == b"POST" else None
        asking: Any = self._agent.request(request.method, self._url_of(request.uri), headers, body)
        asking.addCallback(self._answer, request).addErrback(self._fail, request)
        return NOT_DONE_YET

    def _answer(self, response: IResponse, request: Request) -> Deferred[None]:
        request.setResponseCode(response.code)
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in _HOP_BY_HOP:
                request.responseHeaders.setRawHeaders(name, values)
        if isinstance(response.length, int):
            request.setHeader(b"content-length", b"%d" % response.length)
        done: Deferred[None] = Deferred()
        response.deliverBody(_Copy(request, done))
        done.addCallback(lambda _: request.finish())
        return done

    def _fail(self, failure: Failure, request: Request) -> None:
        request.setResponseCode(502)
        request.write(failure.getErrorMessage().encode("utf-8"))
        request.finish()


@implementer(IAgentEndpointFactory)
class _Always:
    """Connects an agent to *path*, with TLS when the URL has the scheme https."""

    def __init__(self, path: str, ca: Path | None = None) -> None:
        self._path = path
        self._trust = trustRootFromCertificates([Certificate.loadPEM(ca.read_bytes())]) if ca else None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        endpoint = UNIXClientEndpoint(reactor, self._path)
        if self._trust is None:
            return endpoint
        return wrapClientTLS(optionsForClientTLS(uri.host.decode("ascii"), self._trust), endpoint)


class QuietSite(Site):
    """A site that writes no access log, like the other contenders."""

    noisy = False

    def log(self, request: HTTPRequest) -> None:
        """Writes nothing."""


def _agent(factory: _Always) -> Agent:
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = 4096
    pool.cachedConnectionTimeout = 3600
    agent: Agent = Agent.usingEndpointFactory(reactor, factory, pool)
    return agent


def _destination(path: bytes) -> bytes:
    """Turn ``/https://host:port/x`` into ``https://host:port/x``."""
    url = path.lstrip(b"/")
    urlsplit(url)
    return url


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock")
    parts = parser.add_subparsers(dest="part", required=True)
    gateway = parts.add_parser("gateway")
    gateway.add_argument("port", type=int)
    gateway.add_argument("enclave")
    enclave = parts.add_parser("enclave")
    enclave.add_argument("path")
    enclave.add_argument("relay")
    enclave.add_argument("ca", type=Path)
    relay = parts.add_parser("relay")
    relay.add_argument("path")
    relay.add_argument("port", type=int)
    options = parser.parse_args()
    if options.part == "gateway":
        agent = _agent(_Always(options.enclave))
        site = QuietSite(Forwarder(agent, lambda path: b"http://enclave" + path), timeout=3600)
        reactor.listenTCP(options.port, site, 4096, "127.0.0.1")
    elif options.part == "enclave":
        agent = _agent(_Always(options.relay, options.ca))
        reactor.listenUNIX(options.path, QuietSite(Forwarder(agent, _destination), timeout=3600), 4096)
    else:
        factory = ProxyFactory("127.0.0.1", options.port)
        factory.noisy = False
        reactor.listenUNIX(options.path, factory, 4096)
    reactor.run()


if __name__ == "__main__":
    main()
