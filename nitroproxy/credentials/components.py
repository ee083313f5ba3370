"""What the credentials daemon is made of, built from the configuration.

`CredentialsRole` gives it to the composition roots (`nitroproxy.daemon.role`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from nitroproxy import __version__
from nitroproxy.config.schema import Settings
from nitroproxy.credentials.imds import MetadataService
from nitroproxy.credentials.keeper import Keeper
from nitroproxy.credentials.pages import HOP, CredentialsRouter, credentials_site
from nitroproxy.daemon.place import Place, exit_with
from nitroproxy.daemon.role import AllProcesses, AskOnce, Commit, Process, Rest, Server, Stages
from nitroproxy.daemon.wiring import instruments_of, listener_settings, pool_settings
from nitroproxy.errors import Kind
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.metrics import pool_metrics

#: Connections at a time: of each process of the host daemon a few.
_CONNECTIONS: Final = 256
#: Seconds for a connection to the metadata service.
_CONNECT_TIMEOUT: Final = 1.0
#: The daemon's user, and the group that the host daemon's unit joins, may connect.
_MODE: Final = 0o660


class CredentialsServer:
    """What serves. See `nitroproxy.daemon.role.Serving`."""

    answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = MappingProxyType({})

    def __init__(self, process: Process, settings: Settings) -> None:
        instruments, deadlines = process.instruments, process.deadlines
        endpoint, host = _metadata_service(process.reactor, settings.credentials.metadata_url)
        failure = f"cannot reach the metadata service at {host}"
        connects = instruments.watch_connects("imds")
        hop = HopEndpoint(endpoint, Kind.CREDENTIALS_UNAVAILABLE, failure, settings.limits.buffer_bytes, connects)
        pool = self._pool = Pool(
            lambda key, identity: hop, deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
        )
        instruments.metrics.sources.append(pool_metrics("imds", lambda: pool))
        role = settings.credentials.role or ""
        service = MetadataService(pool, host.encode("ascii"), role, deadlines, deadlines.seconds)
        keeper = Keeper(service.credentials, time.time, deadlines.seconds)
        router = CredentialsRouter(credentials_site(keeper, __version__))
        self._factory = DownstreamFactory(HOP, router, _listener(settings), deadlines, instruments.observer(HOP))
        self.factories: Sequence[DownstreamFactory] = [self._factory]
        self.at_end: Sequence[Callable[[], object]] = [pool.retire]

    def close_idle(self) -> None:
        """See `nitroproxy.daemon.role.Serving`."""
        self._pool.close_idle()

    def take(self, shared: bytes) -> None:
        """See `nitroproxy.daemon.role.Serving`: nothing is shared."""

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`."""

        def commit() -> None:
            self._factory.settings = _listener(settings)

        return commit


def _listener(settings: Settings) -> ListenerSettings:
    wanted = listener_settings(settings)
    return replace(wanted, connections=min(wanted.connections, _CONNECTIONS))


def _metadata_service(reactor: Any, url: str) -> tuple[IStreamClientEndpoint, str]:
    """The endpoint that *url* names, and its authority; the schema has checked it."""
    parts = urlsplit(url)
    address = parts.hostname or ""
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    return kind(reactor, address, parts.port or 80, timeout=_CONNECT_TIMEOUT), parts.netloc


class Nothing:
    """There is nothing that the daemon has once. See `nitroproxy.daemon.role.Once`."""

    places: Sequence[Place] = ()
    answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = MappingProxyType({})
    shared = b""
    at_end: Sequence[Callable[[], object]] = ()

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """See `nitroproxy.daemon.role.Once`."""

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`."""
        return lambda: None


class CredentialsRole:
    """The credentials daemon: see `nitroproxy.daemon.role.Role`."""

    name = HOP

    def processes(self, settings: Settings) -> int:
        """See `Role`: one."""
        return 1

    def drain_delay(self, settings: Settings) -> float:
        """See `Role`: none."""
        return 0.0

    def check(self, settings: Settings) -> None:
        """See `Role`: without a role there is nothing to do."""
        if settings.credentials.role is None:
            exit_with(f"{HOP}: credentials.role: not set; name the instance's role, or do not start this daemon")

    def process(self, reactor: Any, settings: Settings, output: int, worker: int | None) -> Process:
        """See `Role`."""
        instruments = instruments_of(reactor, "credentials", settings, output, worker)
        return Process(reactor, settings, Deadlines(reactor), instruments, limits_descriptors=False)

    def servers(self, reactor: Any, settings: Settings) -> Stages:
        """See `Role`: the UNIX socket."""
        path = Path(settings.credentials.socket)
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            exit_with(f"{HOP}: credentials.socket: {error.filename}: {error.strerror}")
        return [[Server(UNIXServerEndpoint(reactor, str(path), mode=_MODE, wantPID=True), str(path), HOP)]]

    def serving(
        self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce
    ) -> CredentialsServer:
        """See `Role`."""
        return CredentialsServer(process, settings)

    def once(self, process: Process, settings: Settings, rest: Rest) -> Nothing:
        """See `Role`."""
        return Nothing()
