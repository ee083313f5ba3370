"""TLS towards destinations: one context, trust roots, the name check, session resumption. It fails closed.

The only module that knows OpenSSL and service-identity. A connection's protocol is made only after the handshake
*and* the verification have succeeded, so nothing can be written before.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import certifi
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
#: Sessions kept for resumption, one for each host.
_SESSIONS: Final = 1024
#: Seconds after which a session is no longer resumed, so that a certificate is looked at again now and then.
_SESSION_LIFETIME: Final = 3600
#: Certificates kept in mind as being for a host.
_NAMES: Final = 1024

#: X509_V_ERR_* of OpenSSL (x509_vfy.h) in words; the rest are told by number.
_CHAIN_ERRORS: Final = {
    2: "its issuer's certificate is not known",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "a self-signed certificate in its chain is not trusted",
    20: "its issuer is not trusted",
    21: "it cannot be verified up to a trusted root",
    23: "it has been revoked",
    24: "a certificate in its chain is not an authority's",
    26: "it is not for servers",
}


class TrustError(ValueError):
    """The trust roots cannot be loaded; the message names the file and says why."""


@implementer(IOpenSSLClientConnectionCreator)
class TLSClient:
    """Makes TLS connections to destinations.

    :param min_version: ``TLSv1.3`` or ``TLSv1.2``.
    :param verify: whether certificates are verified at all.
    :param ca_file: PEM file of trust roots; None for the bundle that comes with the certifi package.
    :param shook_hands: told of each handshake that is over: the failure or None, and whether a session was resumed.
    :param now: a clock, in seconds.
    :ivar wrapping: puts TLS around handshakes.
    :raises TrustError: when the roots cannot be loaded.
    """

    def __init__(
        self,
        *,
        min_version: str,
        verify: bool,
        ca_file: str | None,
        shook_hands: Callable[[Kind | None, bool], object] = lambda error, resumed: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shook_hands = shook_hands
        context = self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(_VERSIONS[min_version])
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_alpn_protos([b"http/1.1"])
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # An idle connection needs none: 41 KiB each instead of 70.
        self.verifies = verify
        if verify:
            _load_roots(context, ca_file or certifi.where())
            context.set_verify(SSL.VERIFY_PEER, _note_chain_error)
        else:
            context.set_verify(SSL.VERIFY_NONE)
        self._now = now
        self._names = _Names()
        #: The last session with each host, and when its certificate was seen.
        self._sessions: OrderedDict[str, tuple[SSL.Session, float]] = OrderedDict()
        self.wrapping = _Wrapping(self, True, Factory())

    def wrap(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """An endpoint that connects *endpoint*, then starts TLS with *host* and verifies it.

        Whoever connects limits the time for all of it.

        :param host: a DNS name in A-labels, or an IP address.
        """
        return _TLSEndpoint(self, endpoint, host)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A new connection for a handshake, resuming the last session with its host if there is one.

        See `IOpenSSLClientConnectionCreator`.
        """
        handshake = tlsProtocol.wrappedProtocol
        assert isinstance(handshake, _Handshake)
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)  # as Twisted does, for the verify callback
        if not _is_address(handshake.host):
            connection.set_tlsext_host_name(handshake.host.encode("ascii"))
        session, verified = self._sessions.get(handshake.host, (None, 0.0))
        # OpenSSL sees to a session's lifetime only where it keeps the sessions itself.
        if session is not None and self._now() < verified + _SESSION_LIFETIME:
            connection.set_session(session)
        return connection

    def verify_name(self, connection: SSL.Connection, host: str) -> None:
        """The certificate must be for *host* (RFC 9525).

        :raises ProxyError: unless it is; any exception at all refuses it.
        """
        try:
            self._names.verify(connection, host)
        except VerificationError as error:
            raise _refusal(host, f"it is not for {host}") from error
        except CertificateError as error:
            raise _refusal(host, f"its names cannot be used: {error}") from error
        except Exception as error:
            raise _refusal(host, f"verifying it failed: {type(error).__name__}") from error

    def remember(self, host: str, connection: SSL.Connection, *, resumed: bool) -> None:
        """Keep *connection*'s session, with *host* verified, for the next one.

        :param resumed: it took up an earlier session: its certificate is as old as that.
        """
        session = connection.get_session()
        if session is not None:
            verified = self._sessions[host][1] if resumed and host in self._sessions else self._now()
            self._sessions[host] = session, verified
            self._sessions.move_to_end(host)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)


class _Names:
    """The name check, and which certificates have passed it for which host.

    Whether a certificate is for a host depends on these two alone, so what passed once passes again. Its chain and its
    dates are another matter: OpenSSL verifies them in every full handshake.
    """

    def __init__(self) -> None:
        self._passed: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def verify(self, connection: SSL.Connection, host: str) -> None:
        """Return if *connection*'s certificate is for *host*, raise anything if it is not."""
        certificate = connection.get_peer_certificate()
        if certificate is None:
            raise CertificateError("there is none")
        key = host, sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)).digest()
        if key in self._passed:
            self._passed.move_to_end(key)
            return
        check = verify_ip_address if _is_address(host) else verify_hostname
        check(connection, host)
        self._passed[key] = None
        if len(self._passed) > _NAMES:
            self._passed.popitem(last=False)


def _load_roots(context: SSL.Context, ca_file: str) -> None:
    try:
        if "-----BEGIN" not in Path(ca_file).read_text("ascii", errors="replace"):
            raise TrustError(f"{ca_file}: holds no certificate in PEM")
        context.load_verify_locations(ca_file)
    except OSError as error:
        raise TrustError(f"{ca_file}: {error.strerror}") from error
    except SSL.Error as error:
        raise TrustError(f"{ca_file}: holds no certificate that can be read") from error


def _note_chain_error(connection: SSL.Connection, certificate: object, number: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback: notes the first error for the message; whatever happens here, no error is forgiven."""
    try:
        handshake = connection.get_app_data().wrappedProtocol
        handshake.certificate_seen = True
        if not ok and handshake.chain_error is None:
            handshake.chain_error = _CHAIN_ERRORS.get(number, f"OpenSSL's verification error {number}")
        return ok == 1
    except Exception:
        return False


class _Wrapping(TLSMemoryBIOFactory):
    """Puts TLS around the handshakes of one client.

    Without Twisted's aggregation of small writes: it schedules a call for each request, and a request is one write.
    """

    protocol = TLSMemoryBIOProtocol

    def around(self, handshake: _Handshake) -> TLSMemoryBIOProtocol:
        """A new connection's protocol."""
        return self.protocol(self, handshake)


@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    """See `TLSClient.wrap`."""

    def __init__(self, client: TLSClient, endpoint: IStreamClientEndpoint, host: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self._host = host

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ProxyError` when TLS does, or as the inner endpoint does."""

        def cancel(_: object) -> None:
            if handshake.transport is None:
                connecting.cancel()
            else:
                handshake.give_up()

        result: Deferred[IProtocol] = Deferred(cancel)
        handshake = _Handshake(self._client, self._host, protocolFactory, result)
        connecting = self._endpoint.connect(_HandshakeFactory(self._client.wrapping, handshake))
        connecting.addErrback(lambda failure: None if result.called else result.errback(failure))
        return result


@implementer(IProtocolFactory)
class _HandshakeFactory:
    """Makes the TLS protocol around the one handshake."""

    def __init__(self, wrapping: _Wrapping, handshake: _Handshake) -> None:
        self._wrapping = wrapping
        self._handshake = handshake

    def buildProtocol(self, addr: object) -> TLSMemoryBIOProtocol:
        """See `IProtocolFactory`."""
        return self._wrapping.around(self._handshake)

    def doStart(self) -> None:
        """See `IProtocolFactory`."""

    def doStop(self) -> None:
        """See `IProtocolFactory`."""


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Waits for the handshake, verifies, and only then makes the application's protocol. Leaves at the first data.

    :ivar certificate_seen: the destination sent its certificate; where a session is resumed it does not.
    :ivar chain_error: why OpenSSL refused the certificate's chain.
    """

    transport: Any

    def __init__(self, client: TLSClient, host: str, factory: IProtocolFactory, result: Deferred[IProtocol]) -> None:
        self.host = host
        self.certificate_seen = False
        self.chain_error: str | None = None
        self._client = client
        self._factory = factory
        self._result = result
        self._inner: IProtocol | None = None

    def handshakeCompleted(self) -> None:
        """The handshake is done; what it proved is looked at now."""
        if self._result.called:
            return
        try:
            if self._client.verifies:
                self._client.verify_name(self.transport.getHandle(), self.host)
            inner = self._factory.buildProtocol(self.transport.getPeer())
        except ProxyError as error:
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
        assert self._inner is not None
        self._client.remember(self.host, self.transport.getHandle(), resumed=not self.certificate_seen)
        self.transport.wrappedProtocol = self._inner
        del self._factory, self._result  # The connection may be idle for long: nothing of its beginning is kept.
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self._result.called:
            self._failed(self._explain(reason))

    def _explain(self, reason: Failure) -> ProxyError:
        if self.chain_error is not None:
            return _refusal(self.host, self.chain_error)
        if reason.check(SSL.Error):
            arguments = reason.value.args if reason.value is not None else ()
            texts = [str(entry[-1]) for entry in (arguments[0] if arguments else [])]
            text = ", ".join(texts) or "no reason given"
            if " alert " in f" {text} ":
                return ProxyError(Kind.TLS_ALERT_RECEIVED, f"{self.host} ended the TLS handshake: {text}")
            if "certificate verify failed" in text:
                return _refusal(self.host, text)
            return ProxyError(Kind.TLS_PROTOCOL_ERROR, f"the TLS handshake with {self.host} failed: {text}")
        how = "closed" if reason.check(ConnectionDone) else "lost"
        return ProxyError(
            Kind.TLS_PROTOCOL_ERROR, f"the connection was {how} during the TLS handshake with {self.host}"
        )

    def give_up(self) -> None:
        """Nobody waits for the connection any more."""
        if self.transport is not None:
            self.transport.abortConnection()

    def _failed(self, error: ProxyError) -> None:
        self.give_up()
        if not self._result.called:
            self._client.shook_hands(error.kind, False)
            self._result.errback(error)


def _refusal(host: str, why: str) -> ProxyError:
    return ProxyError(Kind.TLS_CERTIFICATE_ERROR, f"the certificate of {host} is refused: {why}")


@lru_cache(maxsize=_NAMES)
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
