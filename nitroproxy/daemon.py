"""What the two daemons' composition roots share: the transport between host and enclave, listeners, starting and
ending.

`host.service` and `enclave.service` put their parts together with it. Nothing else imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from nitroproxy.config import Limits as LimitSettings
from nitroproxy.config import Logging, Settings
from nitroproxy.http1.messages import Limits
from nitroproxy.proxy.exchange import ExchangeSettings
from nitroproxy.proxy.listener import DownstreamFactory, ListenerSettings
from nitroproxy.telemetry.logs import log_observer
from nitroproxy.vsock.address import VsockAddress
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint

_log: Final = Logger()

#: Connections that may wait to be accepted; on vsock a full queue refuses at once.
_BACKLOG: Final = 1024

Party = Literal["host", "enclave"]


def hop_server(reactor: Any, settings: Settings, party: Party, port: int) -> tuple[IStreamServerEndpoint, str]:
    """Where *party* listens for the other, and that place's name."""
    if settings.transport.kind == "vsock":
        return VsockServerEndpoint(reactor, port, backlog=_BACKLOG), f"vsock port {port}"
    path = _socket_path(settings, party, port)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoint = UNIXServerEndpoint(reactor, str(path), backlog=_BACKLOG, mode=0o600, wantPID=True)
    return endpoint, str(path)


def hop_client(reactor: Any, settings: Settings, party: Party, port: int) -> tuple[IStreamClientEndpoint, str]:
    """How the other reaches *party*, and that place's name."""
    if settings.transport.kind == "vsock":
        cid = settings.enclave.cid if party == "enclave" else settings.transport.parent_cid
        timeout = settings.limits.connect_timeout
        return VsockClientEndpoint(reactor, cid, port, timeout=timeout), f"vsock {cid}:{port}"
    path = _socket_path(settings, party, port)
    return UNIXClientEndpoint(reactor, str(path), timeout=settings.limits.connect_timeout), str(path)


def _socket_path(settings: Settings, party: Party, port: int) -> Path:
    return Path(settings.transport.directory) / party / f"{port}.sock"


def tcp_server(reactor: Any, interface: str, port: int) -> tuple[IStreamServerEndpoint, str]:
    """A TCP listener, and its name."""
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    shown = f"[{interface}]" if ":" in interface else interface
    return kind(reactor, port, backlog=_BACKLOG, interface=interface), f"{shown}:{port}"


class OnlyFrom:
    """Accepts vsock connections from one CID; connections of other families are guarded by their own means."""

    def __init__(self, cid: int) -> None:
        self._cid = cid

    def __call__(self, address: IAddress) -> bool:
        return not isinstance(address, VsockAddress) or address.cid == self._cid


def listener_settings(settings: Settings, **more: Any) -> ListenerSettings:
    """The configuration's limits as a listener wants them."""
    limits = settings.limits
    return ListenerSettings(
        connections=limits.connections,
        header_timeout=limits.header_timeout,
        idle_timeout=limits.idle_timeout,
        connect_timeout=limits.connect_timeout,
        buffer_bytes=limits.buffer_bytes,
        limits=head_limits(limits),
        exchange=ExchangeSettings(
            response_timeout=limits.response_timeout,
            idle_timeout=limits.idle_timeout,
            min_body_rate=limits.min_body_rate,
            max_retries=settings.host_proxy.max_retries,
            retry_delay=settings.host_proxy.retry_delay,
        ),
        **more,
    )


def head_limits(limits: LimitSettings) -> Limits:
    """The configuration's limits as a reader wants them."""
    return Limits(target_bytes=min(16384, limits.header_bytes), header_bytes=limits.header_bytes)


class Listener(Service):
    """Listens while the daemon runs. A place that cannot be had ends the process: a daemon that does not listen is
    none.

    :param place: what to call it in messages.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, place: str, factory: DownstreamFactory, drain_timeout: float
    ) -> None:
        self._endpoint = endpoint
        self._place = place
        self._factory = factory
        self._drain_timeout = drain_timeout
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen now, before the process gives up privileges."""
        self._endpoint.listen(self._factory).addCallbacks(self._listening, self._failed)
        if self._failure is not None:
            exit_with(f"{self._factory.hop}: cannot listen on {self._place}: {self._failure.getErrorMessage()}")

    _failure: Failure | None = None

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        _log.info("{hop}: listening on {place}", hop=self._factory.hop, place=self._place)

    def _failed(self, failure: Failure) -> None:
        self._failure = failure

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let the requests under way finish, end the rest at the drain timeout."""
        super().stopService()
        closed: Any = self._port.stopListening() if self._port is not None else None
        drained: Deferred[Any] = self._factory.drain(self._drain_timeout)
        drained.addCallback(self._report)
        return gatherResults([closed, drained]) if isinstance(closed, Deferred) else drained

    def _report(self, complete: bool) -> None:
        if not complete:
            _log.warn("{hop}: aborted what was under way on {place}", hop=self._factory.hop, place=self._place)


class Daemon(MultiService):
    """A daemon's services; when twistd makes it the application's, it brings the log observer along.

    :param at_end: what to call when everything has stopped: requests that drain still need what these put away.
    """

    def __init__(self, logging: Logging, at_end: Sequence[Callable[[], object]]) -> None:
        super().__init__()
        self._logging = logging
        self._at_end = at_end

    def stopService(self) -> Deferred[Any]:
        """Stop the services, then put away what they used."""
        stopping: Deferred[Any] = super().stopService()

        def end(result: object) -> object:
            for call in self._at_end:
                call()
            return result

        return stopping.addBoth(end)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join *parent*; an application without a log observer of its own gets the configured one."""
        if isinstance(parent, Componentized) and parent.getComponent(ILogObserver) is None:
            parent.setComponent(ILogObserver, log_observer(self._logging.level, self._logging.format))
        super().setServiceParent(parent)


def exit_with(message: str) -> NoReturn:
    """The daemon cannot be: end the process with status 1 and one line.

    On the real standard error, which twistd has replaced by its log.
    """
    print(message, file=sys.__stderr__, flush=True)
    raise SystemExit(1)
