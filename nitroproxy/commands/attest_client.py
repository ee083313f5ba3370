"""What `nitroproxy attest fetch` and `attest forward` do: connect to an enclave, once or for every local connection.

The trust anchors are AWS's; only the tests give others.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from nitroproxy.attestation import AWS_ROOTS, Policy, Refused
from nitroproxy.attestation.evidence import Identity
from nitroproxy.attestation.refusal import printable
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.settings import TunnelTimes
from nitroproxy.proxy.transport import factory_of
from nitroproxy.proxy.tunnel import Tunnel, TunnelProtocol
from nitroproxy.sockets.options import set_tcp_options
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier, identity_of
from nitroproxy.tls.settings import ClientCertificateFiles

_PORT: Final = 443
#: Seconds for the TCP connection.
_CONNECT: Final = 10.0
#: How long a connection may be silent: the enclave's own limits are shorter.
_TIMES: Final = TunnelTimes(silent=86400.0, unanswered=86400.0, idle=3600.0)
_REFUSED: Final = 1
_NOTHING: Final = 2
_INTERRUPTED: Final = 130

#: Gives an endpoint of the enclave, on a reactor.
Connects = Callable[[Any], IStreamClientEndpoint]


def connects_to(
    url: str,
    policy: Policy,
    challenge: bool,
    client_certificate: tuple[str, str] | None = None,
    roots: Collection[bytes] = AWS_ROOTS,
) -> Connects:
    """How the enclave at *url* is connected to.

    :param client_certificate: the files of this client's own certificate and key.
    :raises ValueError: when a file of the client certificate cannot be used.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORT
    files = ClientCertificateFiles(*client_certificate) if client_certificate is not None else None
    tls = AttestedTLS(Verifier(policy, roots=roots), challenge=challenge, client_certificate=files)
    return lambda reactor: tls.wrap(HostnameEndpoint(reactor, host, port, timeout=_CONNECT), host, reactor)


def fetch(connects: Connects, tell: Callable[[Identity], int]) -> int:
    """Connect once; the exit status, which *tell* gives when the enclave is accepted."""

    async def main(reactor: Any) -> int:
        outcome = await verified(connects(reactor))
        return tell(outcome) if isinstance(outcome, Identity) else outcome

    return _run(main)


async def verified(endpoint: IStreamClientEndpoint) -> Identity | int:
    """What the enclave at *endpoint* proves; or the exit status, after a line that says why there is nothing."""
    try:
        protocol: Any = await endpoint.connect(factory_of(Protocol))
    except Exception as error:
        return explain(error)
    identity = identity_of(protocol.transport)
    assert identity is not None
    protocol.transport.loseConnection()
    return identity


def explain(error: BaseException) -> int:
    """Write why there is no connection to standard error; returns the exit status."""
    if isinstance(error, Refused):
        sys.stderr.write(f"nitroproxy: refused: {error}\n")
        return _REFUSED
    sys.stderr.write(f"nitroproxy: the enclave cannot be reached: {printable(str(error) or type(error).__name__)}\n")
    return _NOTHING


def forward(connects: Connects, listen: tuple[str, int]) -> int:
    """Lead every connection to *listen* to the enclave, until a signal ends the process; the exit status."""

    async def main(reactor: Any) -> int:
        host, port = listen
        try:
            listening = reactor.listenTCP(
                port, Forwarder(connects(reactor), Deadlines(reactor), explain), interface=host
            )
        except CannotListenError as error:
            sys.stderr.write(f"nitroproxy: cannot listen on {host}:{port}: {error.socketError}\n")
            return _NOTHING
        shown = f"[{host}]" if ":" in host else host
        print(f"listening on http://{shown}:{listening.getHost().port}", flush=True)
        await Deferred()
        return 0

    return _run(main)


class Forwarder(Factory):
    """Leads each connection that is accepted to an enclave.

    :param explain: given what has failed.
    """

    noisy = False

    def __init__(
        self, endpoint: IStreamClientEndpoint, deadlines: Deadlines, explain: Callable[[BaseException], object]
    ) -> None:
        self.endpoint = endpoint
        self.deadlines = deadlines
        self.explain = explain

    def buildProtocol(self, addr: object) -> LocalEnd:
        """See `IProtocolFactory`."""
        return LocalEnd(self)


class LocalEnd(TunnelProtocol):
    """A connection of a program on this machine. Nothing is read of it until the enclave is accepted."""

    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__()
        self._forwarder = forwarder
        self._connecting: Deferred[Any] | None = None
        self._gone = False

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        set_tcp_options(self.transport)
        connecting: Deferred[Any] = self._forwarder.endpoint.connect(factory_of(TunnelProtocol))
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, enclave: TunnelProtocol) -> None:
        self._connecting = None
        if self._gone:
            enclave.transport.abortConnection()
            return
        tunnel = Tunnel(self.transport, enclave.transport, self._forwarder.deadlines, _TIMES, lambda end: None)
        enclave.join(tunnel.upstream)
        self.join(tunnel.downstream)
        self.transport.resumeProducing()

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            self._forwarder.explain(failure.value or ConnectionError())
        if not self._gone:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        super().connectionLost(reason)


def _run(main: Callable[[Any], Awaitable[int]]) -> int:
    """Run *main* on the reactor, which cannot be run again in the same process; the exit status."""
    statuses = [_INTERRUPTED]

    async def noted(reactor: Any) -> None:
        statuses.append(await main(reactor))

    with suppress(SystemExit):
        task.react(lambda reactor: Deferred.fromCoroutine(noted(reactor)))
    return statuses[-1]
