"""The egress relay: the enclave asks it by CONNECT for a destination; it checks the policy, dials, moves ciphertext.
Its pages are for the enclave too."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTCP
from twisted.web.server import Site

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.credentials import CredentialsDaemon, RelayedCredentials
from nitroproxy.host.dial import CheckedEndpoint, Resolver
from nitroproxy.host.upstream_proxy import UpstreamProxy
from nitroproxy.http1.messages import Request
from nitroproxy.policy import Policy
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Local, Route
from nitroproxy.target import parse_target
from nitroproxy.telemetry.health import Check, Health, HealthResource, LocalRoot

#: What an upstream proxy takes from the address guard, for health and log.
UNCHECKED: Final = "the address guard refuses internal addresses that are asked for, not those that a name leads to"


def is_address(host: str) -> bool:
    """Whether *host*, in the form of `nitroproxy.target.normalize_host`, is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def relay_site(
    resolver: Resolver,
    policy: Policy,
    version: str,
    credentials: CredentialsDaemon | None = None,
    upstream: UpstreamProxy | None = None,
) -> Site:
    """The relay's own pages: its health and, where there is such a daemon, credentials, for the enclave to ask."""

    async def examine() -> Health:
        dns = Check("pass") if resolver.trouble is None else Check("warn", resolver.trouble)
        checks = {"egress": _way_out(upstream), "dns": dns, "policy": Check("pass", policy.fingerprint)}
        return Health("nitroproxy-relay", version, checks)

    hop = "nitroproxy-relay"
    root = LocalRoot(hop)
    root.putChild(b"health", HealthResource(hop, examine))
    if credentials is not None:
        root.putChild(b"credentials", RelayedCredentials(credentials))
    return Site(root)


def _way_out(upstream: UpstreamProxy | None) -> Check:
    if upstream is None:
        return Check("pass")
    if upstream.trouble is not None:
        return Check("warn", upstream.trouble)
    return Check("pass", f"through {upstream.proxy.url}, which looks names up: {UNCHECKED}")


class EgressRouter:
    """Routes CONNECT to the internet, within *policy*; serves its own pages (health) and nothing else.

    :param timeout: seconds for one address to answer.
    :param upstream: the proxy that leads out, where the relay does not dial itself.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        resolver: Resolver,
        policy: Policy,
        deadlines: Deadlines,
        timeout: float,
        site: Site,
        upstream: UpstreamProxy | None = None,
    ) -> None:
        self._upstream = upstream
        self._reactor = reactor
        self._resolver = resolver
        self._policy = policy
        self._deadlines = deadlines
        self._timeout = timeout
        self._site = site

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        target = parse_target(request.method, request.target)
        if target is None:
            return Local(self._site)
        origin = target.origin
        record.host, record.port = origin.host, origin.port
        if request.method != b"CONNECT":
            raise ProxyError(Kind.METHOD_NOT_ALLOWED, "the relay only carries CONNECT tunnels")
        self._policy.check(origin.host, origin.port)
        if self._upstream is not None and self._upstream.is_for(origin.host, origin.port):
            if is_address(origin.host):
                self._resolver.check(origin.host)
            proxied = self._upstream.endpoint_for(origin)
            return Dial(lambda identity: proxied)
        endpoint = CheckedEndpoint(
            self._reactor, self._resolver, self._deadlines, origin.host, origin.port, self._timeout
        )
        return Dial(lambda identity: endpoint)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`; the address is that which was dialled, or the upstream
        proxy's."""
        self._policy.check(record.host, record.port)
        if self._upstream is not None and self._upstream.is_for(record.host, record.port):
            return
        if isinstance(address, IPv4Address | IPv6Address):
            self._resolver.check(address.host)
