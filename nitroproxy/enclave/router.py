"""The enclave proxy's routing: checks the policy, then forwards to the destination through the relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from prometheus_client.core import Metric
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request as WebRequest
from twisted.web.server import Site

from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.pages import PREFIX
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.policy import Policy
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Forward, Local, Route
from nitroproxy.proxy.upstream import Pool
from nitroproxy.target import parse_target
from nitroproxy.telemetry.exposition import MetricsResource
from nitroproxy.telemetry.health import Health, HealthResource, LocalRoot


class _CloseIdle(LocalRoot):
    """``POST /close-idle``: for a relay that stops. It cannot tell from the ciphertext in them which tunnels are idle.
    Answers 204 at once. Who asks needlessly costs others a handshake."""

    isLeaf = True

    def __init__(self, hop: str, close_idle: Callable[[], object]) -> None:
        super().__init__(hop)
        self._close_idle = close_idle

    def render_POST(self, request: WebRequest) -> bytes:
        self._close_idle()
        request.setResponseCode(204)
        return b""


def enclave_root(
    examine: Callable[[], Awaitable[Health]],
    collect: Callable[[], Awaitable[Sequence[Metric]]],
    close_idle: Callable[[], object],
) -> LocalRoot:
    """The enclave daemon's own pages, but for those about attestation.

    :param close_idle: has all its processes close the connections that no request uses.
    """
    hop = "nitroproxy-enclave"
    root = LocalRoot(hop)
    root.putChild(b"close-idle", _CloseIdle(hop, close_idle))
    root.putChild(b"health", HealthResource(hop, examine))
    root.putChild(b"metrics", MetricsResource(hop, collect))
    return root


class EnclaveRouter:
    """Routes a request to its destination.

    :param allow_plaintext: whether http destinations are allowed; the relay can read that traffic.
    """

    def __init__(self, policy: Policy, pool: Pool, dialer: Dialer, site: Site, *, allow_plaintext: bool) -> None:
        self._policy = policy
        self._pool = pool
        self._dialer = dialer
        self._site = site
        self._allow_plaintext = allow_plaintext

    def route(self, request: Request, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        target = parse_target(request.method, request.target)
        if target is None:
            return Local(self._site, query=request.target.startswith(PREFIX))
        origin = target.origin
        record.scheme, record.host, record.port = origin.scheme, origin.host, origin.port
        self._check(record)
        if request.method == b"CONNECT":
            return Dial(partial(self._dialer.tunnel, origin))
        return Forward(self._pool, origin, target.path, origin.host_field)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`; the address is the relay's."""
        self._check(record)

    def _check(self, record: Record) -> None:
        if record.scheme == "http" and not self._allow_plaintext:
            raise ProxyError(Kind.PLAINTEXT_DESTINATION, "http destinations are off (tls.allow_plaintext)")
        self._policy.check(record.host, record.port)
