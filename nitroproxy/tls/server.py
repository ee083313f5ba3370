"""TLS for clients that come from outside: TLS 1.3 alone, with the certificate that the enclave has at present.

A certificate that is renewed is for new connections; those that are open live on. No session is ever resumed: a
client's verdict on a certificate is for the handshake in which it saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.attestation.evidence import EXPORTER_BYTES, EXPORTER_LABEL
from nitroproxy.tls.anchors import read_certificates

_HTTP: Final = b"http/1.1"


class Cancellable(Protocol):
    """A call that is to come."""

    def cancel(self) -> None: ...


#: Calls something after so many seconds, unless that is cancelled: see `nitroproxy.proxy.deadlines`.
After = Callable[[float, Callable[[], object]], Cancellable]


@implementer(IOpenSSLServerConnectionCreator)
class TLSServer:
    """Makes the TLS of accepted connections.

    :param client_ca_file: a PEM file with the authorities of clients' certificates. A client need not have one; one
        that has another is refused in the handshake. None: no client is asked for one.
    :param shook_hands: called when a handshake is over, with whether it succeeded.
    :raises ValueError: naming the file, when it cannot be used.
    """

    def __init__(
        self, client_ca_file: str | None = None, shook_hands: Callable[[bool], object] = lambda succeeded: None
    ) -> None:
        self._authorities = read_certificates(client_ca_file) if client_ca_file is not None else []
        self._context: SSL.Context | None = None
        self.shook_hands = shook_hands

    def use(self, key: bytes, certificate: bytes) -> None:
        """From now on serve new connections with *certificate* (DER) and its *key* (PKCS #8)."""
        private = load_der_private_key(key, password=None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        context = _context(self._authorities)
        context.use_certificate(x509.load_der_x509_certificate(certificate))
        context.use_privatekey(private)
        context.check_privatekey()
        self._context = context

    def around(self, factory: IProtocolFactory, after: After, patience: Callable[[], float]) -> IProtocolFactory:
        """A factory for connections with TLS, in which *factory*'s protocols speak.

        :param after: ends a handshake that is late.
        :param patience: gives the seconds that one may take.
        """
        return _Wrapping(self, factory, after, patience)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        if self._context is None:
            raise RuntimeError("there is no certificate yet")
        return SSL.Connection(self._context, None)


def _context(authorities: Sequence[x509.Certificate]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_alpn_select_callback(_select_protocol)
    if authorities:
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # An intermediate certificate may be the anchor.
        context.set_verify(SSL.VERIFY_PEER, _accept_what_openssl_does)
    return context


def _accept_what_openssl_does(
    connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
) -> bool:
    return ok == 1


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


@implementer(IHalfCloseableProtocol)
class ServerTransport(TLSMemoryBIOProtocol):
    """The TLS of one accepted connection, as its protocol sees it.

    :ivar certified: the client has proven itself with a certificate of one of the authorities.
    """

    factory: _Wrapping
    transport: Any
    certified = False
    _ends_direction = False
    _late: Cancellable | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """See `IProtocol`."""
        self._late = self.factory.after(self.factory.patience(), self.abortConnection)
        super().makeConnection(transport)

    def exported(self) -> bytes:
        """What identifies this connection to both of its ends (RFC 9266 section 2)."""
        octets: bytes = self._tlsConnection.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b"")
        return octets

    def dataReceived(self, bytes: bytes) -> None:
        done = self._handshakeDone
        super().dataReceived(bytes)
        if self._handshakeDone and not done:
            self._shook_hands(True)
            self._end_direction()

    def _checkHandshakeStatus(self) -> None:
        super()._checkHandshakeStatus()
        if self._handshakeDone:
            # Before anything that the client has sent is read.
            self.certified = self._tlsConnection.get_peer_certificate(as_cryptography=True) is not None

    def _shook_hands(self, succeeded: bool) -> None:
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
            self.factory.creator.shook_hands(succeeded)

    def loseWriteConnection(self) -> None:
        """Send no more, and go on reading: close_notify ends one direction (RFC 8446 section 6.1)."""
        self._ends_direction = True
        self._end_direction()

    def _end_direction(self) -> None:
        """Before the handshake is over nothing can be sent, and what was written waits."""
        if self._ends_direction and self._handshakeDone and not self._lostTLSConnection:
            self._ends_direction = False
            self._shutdownTLS()
            self.transport.loseWriteConnection()

    def readConnectionLost(self) -> None:
        """The client ends its direction without a close_notify: it has gone, or somebody has cut the connection."""
        self.abortConnection()

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._shook_hands(False)
        super().connectionLost(reason)


class _Wrapping(TLSMemoryBIOFactory):
    """Puts TLS around the connections of one listener."""

    protocol = ServerTransport
    noisy = False

    def __init__(
        self, creator: TLSServer, wrappedFactory: IProtocolFactory, after: After, patience: Callable[[], float]
    ) -> None:
        super().__init__(creator, False, wrappedFactory)
        self.creator = creator
        self.after = after
        self.patience = patience

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        """None for a peer that the listener refuses: Twisted would put TLS around nothing."""
        inner = self.wrappedFactory.buildProtocol(addr)
        return self.protocol(self, inner) if inner is not None else None


def exported_of(transport: object) -> bytes | None:
    """What identifies the connection of *transport* to both of its ends; None where it has no TLS of ours."""
    return transport.exported() if isinstance(transport, ServerTransport) else None
