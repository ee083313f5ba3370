"""The enclave daemon's composition root: `twistd nitroproxy-enclave`. Reads the configuration, builds the parts, joins
them."""

from __future__ import annotations

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.web.server import Site

from nitroproxy import __version__
from nitroproxy.daemon import Daemon, Listener, exit_with
from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.health import HealthOfEnclave
from nitroproxy.enclave.router import EnclaveRouter
from nitroproxy.errors import Kind
from nitroproxy.options import DaemonOptions
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.health import HealthResource, LocalRoot
from nitroproxy.telemetry.logs import log_observer
from nitroproxy.tls import TLSClient, TrustError
from nitroproxy.wiring import OnlyFrom, head_limits, hop_client, hop_server, listener_settings, tcp_server

_log = Logger()
_HOP = "nitroproxy-enclave"


class Options(DaemonOptions):
    """Options of `twistd nitroproxy-enclave`."""

    longdesc = "The enclave side of nitroproxy: the proxy whose TLS starts inside the enclave."


def makeService(options: Options) -> IService:
    """The enclave daemon, ready to start."""
    from twisted.internet import reactor

    settings = options.configuration.settings
    limits = settings.limits
    deadlines = Deadlines(reactor)
    if not settings.tls.verify_certificates:
        _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified")

    endpoint, place = hop_client(reactor, settings, "host", settings.egress.port)
    relay = HopEndpoint(
        endpoint, Kind.RELAY_UNAVAILABLE, f"cannot reach the egress relay at {place}", limits.buffer_bytes
    )
    try:
        tls = TLSClient(
            min_version=settings.tls.min_version, verify=settings.tls.verify_certificates, ca_file=settings.tls.ca_file
        )
    except TrustError as error:
        exit_with(f"{_HOP}: tls.ca_file: {error}")
    dialer = Dialer(reactor, relay, tls, limits.connect_timeout)
    pool = Pool(
        dialer.endpoint_for,
        deadlines,
        limits=head_limits(limits),
        connect_timeout=limits.connect_timeout,
        idle_timeout=limits.idle_timeout / 2,
        most=limits.connections,
        end_is_proof=True,
    )
    policy = Policy(settings.egress.allow, settings.egress.deny)
    health = HealthOfEnclave(
        relay, policy, deadlines, __version__, head_limits(limits), verifies=settings.tls.verify_certificates
    )
    root = LocalRoot(_HOP)
    root.putChild(b"health", HealthResource(health))
    router = EnclaveRouter(policy, pool, dialer, Site(root), allow_plaintext=settings.tls.allow_plaintext)

    server, place = hop_server(reactor, settings, "enclave", settings.enclave.port)
    from_parent = listener_settings(settings, accepts=OnlyFrom(settings.transport.parent_cid))
    factory = DownstreamFactory(_HOP, router, from_parent, deadlines)
    listeners = [Listener(server, place, factory)]
    if settings.enclave.proxy_port:
        server, place = tcp_server(reactor, settings.enclave.proxy_interface, settings.enclave.proxy_port)
        factory = DownstreamFactory(_HOP, router, listener_settings(settings), deadlines)
        listeners.append(Listener(server, place, factory))
    return Daemon(
        reactor,
        [listeners],
        limits.drain_timeout,
        log_observer(settings.logging.level, settings.logging.format),
        [pool.close_idle, deadlines.stop],
    )
