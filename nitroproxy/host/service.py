"""The host daemon's composition root: `twistd nitroproxy-host`. Reads the configuration, builds the parts, joins
them."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from twisted.web.server import Site

from nitroproxy import __version__
from nitroproxy.config import Settings
from nitroproxy.daemon import Daemon, Listener
from nitroproxy.errors import Kind
from nitroproxy.host.dial import Resolver, system_lookup
from nitroproxy.host.egress import EgressRouter
from nitroproxy.host.gateway import GatewayRouter
from nitroproxy.host.interfaces import own_addresses
from nitroproxy.host.resource import HealthOfHost, gateway_site
from nitroproxy.options import DaemonOptions
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.proxy.connect import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.health import Check, Health, HealthResource, LocalRoot
from nitroproxy.telemetry.logs import log_observer
from nitroproxy.wiring import OnlyFrom, head_limits, hop_client, hop_server, listener_settings, tcp_server

_log = Logger()

#: Threads for looking up names, so that a slow one holds up no other.
_LOOKUP_THREADS = 32


class Options(DaemonOptions):
    """Options of `twistd nitroproxy-host`."""

    longdesc = "The host side of nitroproxy: the HTTP gateway and the enclave's egress relay."


def makeService(options: Options) -> IService:
    """The host daemon, ready to start."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    settings = options.configuration.settings
    deadlines = Deadlines(reactor)
    threads = ThreadPool(0, _LOOKUP_THREADS, "lookup")
    threads.start()
    pool, gateway = _gateway(reactor, settings, deadlines)
    if not settings.tls.verify_certificates:
        _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified")

    guard = AddressGuard(settings.egress.allow_addresses, own_addresses)
    resolver = Resolver(system_lookup(reactor, threads), guard, deadlines, settings.limits.connect_timeout / 2)
    return Daemon(
        reactor,
        # The gateway's last requests still go out through the relay.
        [[gateway], [_relay(reactor, settings, resolver, deadlines)]],
        settings.limits.drain_timeout,
        log_observer(settings.logging.level, settings.logging.format),
        [pool.close_idle, threads.stop, deadlines.stop],
    )


def _gateway(reactor: Any, settings: Settings, deadlines: Deadlines) -> tuple[Pool, Listener]:
    endpoint, place = hop_client(reactor, settings, "enclave", settings.enclave.port)
    enclave = HopEndpoint(
        endpoint, Kind.ENCLAVE_UNAVAILABLE, f"cannot reach the enclave at {place}", settings.limits.buffer_bytes
    )
    pool = Pool(
        lambda key, identity: enclave,
        deadlines,
        limits=head_limits(settings.limits),
        connect_timeout=settings.limits.connect_timeout,
        idle_timeout=settings.limits.idle_timeout / 2,
        most=settings.limits.connections,
        end_is_proof=False,
    )
    health = HealthOfHost(pool, deadlines, __version__, verifies=settings.tls.verify_certificates)
    router = GatewayRouter(pool, enclave, gateway_site(health, health.live, __version__))
    server, place = tcp_server(reactor, settings.host_proxy.interface, settings.host_proxy.port)
    factory = DownstreamFactory("nitroproxy-host", router, listener_settings(settings), deadlines)
    return pool, Listener(server, place, factory)


def _relay(reactor: Any, settings: Settings, resolver: Resolver, deadlines: Deadlines) -> Listener:
    policy = Policy(settings.egress.allow, settings.egress.deny)

    async def examine() -> Health:
        dns = Check("pass") if resolver.trouble is None else Check("warn", resolver.trouble)
        checks = {"egress": Check("pass"), "dns": dns, "policy": Check("pass", policy.fingerprint)}
        return Health("nitroproxy-relay", __version__, checks)

    root = LocalRoot("nitroproxy-relay")
    root.putChild(b"health", HealthResource(examine))
    # A little less than the enclave waits, so that it is told why.
    timeout = settings.limits.connect_timeout * 0.9
    router = EgressRouter(reactor, resolver, policy, deadlines, timeout, Site(root))
    server, place = hop_server(reactor, settings, "host", settings.egress.port)
    limits = listener_settings(settings, accepts=OnlyFrom(settings.enclave.cid))
    factory = DownstreamFactory("nitroproxy-relay", router, limits, deadlines)
    return Listener(server, place, factory)
