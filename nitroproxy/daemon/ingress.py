"""The listeners of the section ingress: on the host those that are reached from outside, in the enclave those that the
host reaches, at the vsock port that both have. Bytes pass as they are.

Each daemon has its own configuration: where a vsock port leads in the enclave is decided there alone. `host.components`
and `enclave.components` say where theirs lead; nothing else imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.interfaces import IAddress

from nitroproxy.config.kinds import address_and_port
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.role import Commit, Process, Server
from nitroproxy.daemon.wiring import activated, enclave_places, hop_server, listener_settings, tcp_server
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.opening import passage
from nitroproxy.proxy.passage import PassageRouter
from nitroproxy.proxy.places import Places
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.metrics import limit_metrics

#: The name of these listeners, in both daemons.
HOP: Final = "nitroproxy-ingress"


@dataclass(frozen=True)
class Way:
    """One forward, as one daemon has it.

    :ivar requires_header: its connections begin with a header of the PROXY protocol.
    :ivar peers_are_proxies: see `ListenerSettings`.
    """

    router: PassageRouter
    requires_header: bool
    peers_are_proxies: bool


class IngressListeners:
    """The listeners of the section. See `nitroproxy.daemon.role.Serving` for `factories` and `prepare`.

    They share their places: together they serve a quarter more connections than one of them may have.

    :param make_ways: gives the forwards by the configuration, which has always as many.
    :param accepts: whether a peer may use them.
    """

    def __init__(
        self,
        process: Process,
        settings: Settings,
        make_ways: Callable[[Settings], Sequence[Way]],
        accepts: Callable[[IAddress], bool] = lambda address: True,
    ) -> None:
        self._make_ways = make_ways
        self._accepts = accepts
        ways = make_ways(settings)
        observer = process.instruments.observer(HOP) if ways else None
        places = Places()
        self.factories = [
            DownstreamFactory(
                HOP,
                way.router,
                self._settings(settings, way, len(ways)),
                process.deadlines,
                observer,
                places,
                passage(header=way.requires_header),
            )
            for way in ways
        ]
        if self.factories:
            process.instruments.metrics.sources.append(limit_metrics({HOP: self.factories[0].limit}))

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`: limits and times change, also those of the way to where a forward
        leads; the forwards themselves need a restart."""
        ways = self._make_ways(settings)

        def commit() -> None:
            for factory, way in zip(self.factories, ways, strict=True):
                factory.router, factory.settings = way.router, self._settings(settings, way, len(ways))

        return commit

    def _settings(self, settings: Settings, way: Way, count: int) -> ListenerSettings:
        return replace(
            listener_settings(settings, self._accepts),
            together=enclave_places(settings) if count > 1 else 0,
            peers_are_proxies=way.peers_are_proxies,
        )


def outside_servers(reactor: Any, settings: Settings) -> list[Server]:
    """Where the host daemon listens for each forward, then for the attested listener: at systemd's socket if it holds
    one for it, which ports below 1024 need."""
    servers = []
    for forward in settings.ingress.forwards:
        host, port = address_and_port(forward.listen)
        given = activated(reactor, f"ingress-{forward.vsock}")
        servers.append(Server(*(given or tcp_server(reactor, host, port)), HOP))
    ingress = settings.ingress
    if ingress.tcp_port:
        given = activated(reactor, f"ingress-{ingress.port}")
        servers.append(Server(*(given or tcp_server(reactor, ingress.interface, ingress.tcp_port)), HOP))
    return servers


def inside_servers(reactor: Any, settings: Settings) -> list[Server]:
    """Where the enclave daemon listens for each forward."""
    return [
        Server(*hop_server(reactor, settings, "enclave", forward.vsock), HOP) for forward in settings.ingress.forwards
    ]
