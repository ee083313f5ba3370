"""One connection's handshake: it makes the application's protocol only when the verification has succeeded.

Until then nothing can be written, and whatever goes wrong fails the connection with a `ProxyError`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from typing import Protocol as Interface

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.identities import Identity
from nitroproxy.tls.reasons import chain_reason, handshake_failure, refusal
from nitroproxy.tls.sessions import Resumable
from nitroproxy.tls.verification import Verdict


class Handshakes(Interface):
    """What a handshake needs of its client."""

    min_version: str
    verifies: bool

    def verify(self, handshake: Handshake) -> Verdict: ...
    def check_name(self, certificate: crypto.X509, host: str) -> None: ...
    def remember(self, handshake: Handshake, verdict: Verdict) -> None: ...
    def date(self) -> datetime: ...
    def shook_hands(self, error: Kind | None, resumed: bool) -> object: ...


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """Waits for the handshake, verifies, then makes the application's protocol. Leaves at the first data.

    :ivar certificate_seen: the destination sent its certificate; where a session is resumed it does not.
    :ivar refused: why the certificate was refused while the handshake went on.
    :ivar offered: the session that was offered for resumption.
    :ivar identity: the client certificate that is sent if the destination asks for one.
    """

    transport: Any

    def __init__(
        self, client: Handshakes, host: str, port: int, factory: IProtocolFactory, result: Deferred[IProtocol]
    ) -> None:
        self.host = host
        self.port = port
        self.certificate_seen = False
        self.refused: ProxyError | None = None
        self.offered: Resumable | None = None
        self.identity: Identity | None = None
        self._client = client
        self._factory = factory
        self._result = result
        self._inner: IProtocol | None = None
        self._verdict: Verdict | None = None

    def certificate_verified(self, certificate: crypto.X509, number: int, depth: int, ok: bool) -> bool:
        """OpenSSL's verdict on one certificate of the chain, the destination's own last; whether to go on."""
        self.certificate_seen = True
        if not ok:
            if self.refused is None:
                reason = chain_reason(certificate.to_cryptography(), number, depth, self._client.date())
                self.refused = refusal(self.host, reason)
            return False
        if depth == 0 and self.identity is not None:
            # A client certificate goes out before the handshake is over: not to one that has another's name.
            try:
                self._client.check_name(certificate, self.host)
            except ProxyError as error:
                self.refused = error
                return False
        return True

    def handshakeCompleted(self) -> None:
        """The handshake is done; what it proved is looked at now."""
        if self._result.called:
            return
        try:
            self._verdict = self._client.verify(self)
            inner = self._factory.buildProtocol(self.transport.getPeer())
        except Exception as error:  # What is no `ProxyError` is logged by the one who asked for the connection.
            self._failed(error)
            return
        if inner is None:
            self._failed(ProxyError(Kind.INTERNAL_ERROR, "internal error: no protocol for the connection"))
            return
        self._inner = inner
        self._client.shook_hands(None, self._client.verifies and not self.certificate_seen)
        inner.makeConnection(self.transport)
        self._result.callback(inner)

    def dataReceived(self, data: bytes) -> None:
        # TLS 1.3 tickets come after the handshake, ahead of the first data: now there is a session to keep.
        assert self._inner is not None and self._verdict is not None
        self._client.remember(self, self._verdict)
        self.transport.wrappedProtocol = self._inner
        # The connection may be idle for long: nothing of its beginning is kept.
        del self._factory, self._result, self._verdict, self.offered
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            # In TLS 1.3 a destination can refuse our certificate, or the lack of one, only after the handshake.
            alert = isinstance(reason.value, SSL.Error)
            self._inner.connectionLost(Failure(self._explain(reason)) if alert else reason)
        elif not self._result.called:
            self._failed(self._explain(reason))

    def _explain(self, reason: Failure) -> ProxyError:
        if self.refused is not None:
            return self.refused
        error = reason.value
        if isinstance(error, SSL.Error):
            texts = [str(entry[-1]) for entry in (error.args[0] if error.args else [])]
            identity = self.identity.pattern if self.identity is not None else None
            return handshake_failure(self.host, texts, min_version=self._client.min_version, identity=identity)
        how = "closed" if reason.check(ConnectionDone) else "lost"
        return ProxyError(
            Kind.TLS_PROTOCOL_ERROR, f"the connection was {how} during the TLS handshake with {self.host}"
        )

    def give_up(self) -> None:
        """End the connection; called when its request does not wait for it any more."""
        if self.transport is not None:
            self.transport.abortConnection()

    def _failed(self, error: Exception) -> None:
        self.give_up()
        if not self._result.called:
            self._client.shook_hands(error.kind if isinstance(error, ProxyError) else Kind.INTERNAL_ERROR, False)
            self._result.errback(Failure(error))


@implementer(IProtocolFactory)
class OneProtocol:
    """A factory for one connection that starts TLS: a factory of Twisted's would make itself the protocol's, whose own
    is the one that knows TLS.

    :param make: makes the protocol.
    """

    def __init__(self, make: Callable[[], IProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> IProtocol:
        """See `IProtocolFactory`."""
        return self._make()

    def doStart(self) -> None:
        """See `IProtocolFactory`."""

    def doStop(self) -> None:
        """See `IProtocolFactory`."""
