"""TLS connections to destinations. A connection's protocol is made only after the handshake *and* the verification
have succeeded (`handshake`), so nothing can be written before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from nitroproxy.errors import Kind
from nitroproxy.tls.anchors import load_anchors
from nitroproxy.tls.contexts import Contexts
from nitroproxy.tls.handshake import Handshake, OneProtocol
from nitroproxy.tls.names import is_address
from nitroproxy.tls.reasons import refusal
from nitroproxy.tls.sessions import Sessions
from nitroproxy.tls.settings import TLSFileError, TLSSettings
from nitroproxy.tls.verification import Clocks, Verdict, Verifier

_T = TypeVar("_T")


@implementer(IOpenSSLClientConnectionCreator)
class TLSClient:
    """Makes TLS connections to destinations. A reload of the configuration makes a new one.

    :param protocols: those that are offered to destinations (ALPN); none: the extension is not sent.
    :param shook_hands: called after each handshake with the failure or None, and whether a session was resumed.
    :param now: a monotonic clock, in seconds.
    :param wall: the time of day, in seconds since the epoch.
    :ivar verifies: whether certificates are verified at all.
    :ivar wrapping: puts TLS around handshakes.
    :raises TLSFileError: naming every file of *settings* that cannot be used.
    """

    def __init__(
        self,
        settings: TLSSettings,
        *,
        protocols: Sequence[bytes] = (b"http/1.1",),
        shook_hands: Callable[[Kind | None, bool], object] = lambda error, resumed: None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.shook_hands = shook_hands
        self.min_version = settings.min_version
        self.verifies = settings.verify
        self._clocks = Clocks(now, wall)
        problems: list[tuple[str, str]] = []
        anchors = _collecting(problems, lambda: load_anchors(settings)) or []
        contexts = _collecting(problems, lambda: Contexts(settings, anchors, _certificate_verified, protocols))
        if contexts is None or problems:
            raise TLSFileError(problems)
        self._contexts = contexts
        self._verifier = Verifier(anchors, settings.profile, self._clocks) if settings.verify else None
        self._sessions = Sessions(self._clocks)
        self.wrapping = _Wrapping(self, True, Factory())

    def wrap(self, endpoint: IStreamClientEndpoint, host: str, port: int) -> IStreamClientEndpoint:
        """An endpoint that connects *endpoint*, then starts TLS with *host* and verifies it. The time for all of it is
        the caller's to limit, by cancelling.

        :param host: a DNS name in A-labels, or an IP address.
        :param port: with *host* it chooses the client certificate.
        """
        return _TLSEndpoint(self, endpoint, host, port)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A new connection for a handshake, resuming the last session with its destination if there is one.

        See `IOpenSSLClientConnectionCreator`.
        """
        handshake = tlsProtocol.wrappedProtocol
        assert isinstance(handshake, Handshake)
        context, handshake.identity = self._contexts.find(handshake.host, handshake.port)
        connection = SSL.Connection(context, None)
        connection.set_app_data(tlsProtocol)  # as Twisted does, for the verify callback
        if not is_address(handshake.host):
            connection.set_tlsext_host_name(handshake.host.encode("ascii"))
        handshake.offered = self._sessions.find(handshake.host, handshake.port)
        if handshake.offered is not None:
            connection.set_session(handshake.offered.session)
        return connection

    def verify(self, handshake: Handshake) -> Verdict:
        """The verdict on what *handshake* proved. Called once, when it is over.

        :raises ProxyError: unless the certificate is accepted.
        """
        if self._verifier is None:
            return self._clocks.verdict([])
        if handshake.certificate_seen:
            return self._verifier.verify(handshake.transport.getHandle(), handshake.host)
        if handshake.offered is None:
            raise refusal(handshake.host, "the destination sent none")
        return handshake.offered.verdict

    def check_name(self, certificate: crypto.X509, host: str) -> None:
        """Check *certificate*'s name in the middle of a handshake. See `Verifier.check_name`."""
        assert self._verifier is not None
        self._verifier.check_name(certificate, host)

    def remember(self, handshake: Handshake, verdict: Verdict) -> None:
        """Keep the session of *handshake* for the next one."""
        self._sessions.keep(handshake.host, handshake.port, handshake.transport.getHandle(), verdict)

    def date(self) -> datetime:
        """The time of day, for messages."""
        return self._clocks.date()


def _collecting(problems: list[tuple[str, str]], load: Callable[[], _T]) -> _T | None:
    """What *load* returns; or None, with what is wrong added to *problems*, so that one error names everything."""
    try:
        return load()
    except TLSFileError as error:
        problems += error.problems
        return None


def _certificate_verified(
    connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verify callback, for each certificate. Whatever happens here, no error is forgiven."""
    try:
        handshake = connection.get_app_data().wrappedProtocol
        return handshake.certificate_verified(certificate, number, depth, ok == 1) is True and ok == 1
    except Exception:
        return False


class _Wrapping(TLSMemoryBIOFactory):
    """Puts TLS around the handshakes of one client.

    Without Twisted's aggregation of small writes: it schedules a call for each request, and a request is one write.
    """

    protocol = TLSMemoryBIOProtocol

    def around(self, handshake: Handshake) -> TLSMemoryBIOProtocol:
        """A new connection's protocol."""
        return self.protocol(self, handshake)


@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    """See `TLSClient.wrap`."""

    def __init__(self, client: TLSClient, endpoint: IStreamClientEndpoint, host: str, port: int) -> None:
        self._client = client
        self._endpoint = endpoint
        self._host = host
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ProxyError` when TLS does, or as the inner endpoint does."""

        def cancel(_: object) -> None:
            if handshake.transport is None:
                connecting.cancel()
            else:
                handshake.give_up()

        result: Deferred[IProtocol] = Deferred(cancel)
        handshake = Handshake(self._client, self._host, self._port, protocolFactory, result)
        connecting = self._endpoint.connect(OneProtocol(lambda: self._client.wrapping.around(handshake)))
        connecting.addErrback(lambda failure: None if result.called else result.errback(failure))
        return result
