"""An HTTP client for enclaves: Twisted's Agent, for treq and by itself, whose connections are attested ones.

    agent = AttestedAgent(reactor, load_policy("policy.json"))
    response = await treq.client.HTTPClient(agent).post("https://host:8443/path", data=b"for the enclave alone")

No byte of a request leaves for an enclave that the policy does not accept; the request then fails with `Refused`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from nitroproxy.attestation import AWS_ROOTS, Policy
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier
from nitroproxy.tls.settings import ClientCertificateFiles


@implementer(IAgent)
class AttestedAgent:
    """Sends requests to enclaves.

    It has a pool of connections of its own: one that it shared with another agent could hand it a connection that
    nobody has verified.

    :param policy: which images are accepted.
    :param challenge: see `AttestedTLS`.
    :param client_certificate: see `AttestedTLS`.
    :param persistent: keep connections for further requests.
    :param connect_timeout: seconds for the TCP connection.
    :param roots: see `nitroproxy.attestation.verify`; for tests.
    :param now: the time of day, with a time zone.
    :raises ValueError: for a policy without max_age, or a client certificate that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        policy: Policy,
        *,
        challenge: bool = False,
        client_certificate: ClientCertificateFiles | None = None,
        persistent: bool = True,
        connect_timeout: float = 10.0,
        roots: Collection[bytes] = AWS_ROOTS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        tls = AttestedTLS(
            Verifier(policy, roots=roots, now=now), challenge=challenge, client_certificate=client_certificate
        )
        self._pool = HTTPConnectionPool(reactor, persistent=persistent)
        endpoints = _Endpoints(reactor, tls, connect_timeout)
        self._agent = Agent.usingEndpointFactory(reactor, endpoints, self._pool)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See `IAgent`. Fails with `Refused` when the enclave is not accepted, and with `SchemeNotSupported` when it is
        not https."""
        requesting: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return requesting

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """An attested endpoint for every URI."""

    def __init__(self, reactor: Any, tls: AttestedTLS, connect_timeout: float) -> None:
        self._reactor = reactor
        self._tls = tls
        self._connect_timeout = connect_timeout

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        if uri.scheme != b"https":
            raise SchemeNotSupported(f"an attested connection is https, not {uri.scheme!r}")
        host = uri.host.decode("ascii")
        tcp = HostnameEndpoint(self._reactor, host, uri.port, timeout=self._connect_timeout)
        return self._tls.wrap(tcp, host, self._reactor)
