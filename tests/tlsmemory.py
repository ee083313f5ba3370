"""Certificates of any shape, and TLS servers in memory: for the tests of `nitroproxy.tls`, without sockets or time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.client import TLSClient
from tests.wire import Maker, WaitingEndpoint, Wire

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Extensions = Sequence[tuple[x509.ExtensionType, bool]]

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
_MOST_ROUNDS = 20


def usage(*names: str) -> x509.KeyUsage:
    """The key usage with *names* set."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return x509.KeyUsage(**{name: name in names for name in every.split()}, encipher_only=False, decipher_only=False)


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and the intermediate certificates that a server sends along."""

    certificate: x509.Certificate
    key: Key
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificates in PEM."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in (self.certificate, *self.intermediates))

    @property
    def key_pem(self) -> bytes:
        """The key in PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """A certificate authority, by default one that conforms to the rules of the public web.

    :param issuer: the authority above it; None for a root.
    :param extra: more extensions, or others in place of the usual ones, each with whether it is critical.
    :param without: types of the usual extensions that are left out.
    """

    def __init__(
        self,
        name: str = "root",
        issuer: Authority | None = None,
        *,
        extra: Extensions = (),
        without: Collection[type[x509.ExtensionType]] = (),
        not_after: datetime = NOW + 3650 * DAY,
        key: Key | None = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above: tuple[x509.Certificate, ...] = (issuer.certificate, *issuer.above) if issuer is not None else ()
        usual: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (usage("key_cert_sign", "crl_sign", "digital_signature"), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
        ]
        if issuer is not None:
            usual.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
        self.certificate: x509.Certificate = _sign(
            self.name, self.key, issuer or self, _extensions(usual, extra, without), NOW - 10 * DAY, not_after
        )

    @property
    def pem(self) -> bytes:
        """Its certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str,
        extra: Extensions = (),
        without: Collection[type[x509.ExtensionType]] = (),
        not_before: datetime = NOW - DAY,
        not_after: datetime = NOW + 30 * DAY,
        key: Key | None = None,
        serial: int | None = None,
    ) -> Identity:
        """A server's certificate for *names*, DNS names or IP addresses; ``a.example`` when there are none."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        usual: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectAlternativeName([_general_name(name) for name in names or ("a.example",)]), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        extensions = _extensions(usual, extra, without)
        certificate = _sign(subject, key, self, extensions, not_before, not_after, serial)
        return Identity(certificate, key, (self.certificate, *self.above)[: len(self.above)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _extensions(
    usual: Extensions, extra: Extensions, without: Collection[type[x509.ExtensionType]]
) -> list[tuple[x509.ExtensionType, bool]]:
    replaced = {type(extension) for extension, _ in extra} | set(without)
    return [*((one, critical) for one, critical in usual if type(one) not in replaced), *extra]


def _sign(
    subject: x509.Name,
    key: Key,
    issuer: Authority,
    extensions: Extensions,
    not_before: datetime,
    not_after: datetime,
    serial: int | None = None,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer.name, subject, key.public_key(), serial or x509.random_serial_number())
    builder = builder.not_valid_before(not_before).not_valid_after(not_after)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.key, hashes.SHA256())


class Application(Protocol):
    """Speaks as soon as it is made, as the proxy does."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Any] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"secret")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.value)


class MemoryServer:
    """A TLS server that lends itself to one connection after the other.

    :param configure: changes the context before it is used.
    :ivar received: what the last connection's application sent.
    :ivar resumed: for each connection, whether its session was resumed.
    """

    def __init__(self, identity: Identity, configure: Callable[[SSL.Context], object] = lambda context: None) -> None:
        context = self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(identity.certificate)
        for certificate in identity.intermediates:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
        context.set_session_id(b"test")
        context.set_alpn_select_callback(lambda connection, offered: offered[0])
        configure(context)
        self.received = b""
        self.tls: SSL.Connection

    def connect(self, client: TLSClient, host: str = "a.example", port: int = 443) -> tuple[Wire, list[Any]]:
        """Connect *client* as far as it goes: its wire, and the application or the error, if there is one yet."""
        inner = WaitingEndpoint()
        results: list[Any] = []
        connecting = client.wrap(inner, host, port).connect(Maker(Application))
        connecting.addCallbacks(results.append, lambda failure: results.append(failure.value))
        wire = inner.accept()
        self.accept(wire)
        return wire, results

    def accept(self, wire: Wire) -> None:
        """Shake hands with the client at *wire*."""
        self.tls = SSL.Connection(self.context, None)
        self.tls.set_accept_state()
        self.received = b""
        self.exchange(wire)

    def exchange(self, wire: Wire) -> None:
        """Carry bytes both ways until there are none."""
        for _ in range(_MOST_ROUNDS):
            sent = wire.take()
            if sent:
                self.tls.bio_write(sent)
            with suppress(SSL.WantReadError, SSL.ZeroReturnError, SSL.Error):
                self.tls.do_handshake()
                self.received += self.tls.recv(65536)
            try:
                answer = self.tls.bio_read(65536)
            except SSL.WantReadError:
                return
            if wire.closed:
                return
            wire.receive(answer)

    def send(self, wire: Wire, data: bytes) -> None:
        """Send *data* to the application."""
        self.tls.send(data)
        self.exchange(wire)

    def accepted(self, client: TLSClient, host: str = "a.example", port: int = 443) -> tuple[Wire, Application]:
        """Connect, and talk, so that there is a session to keep. The application has to be there."""
        wire, results = self.connect(client, host, port)
        if not results or not isinstance(results[0], Application):
            raise AssertionError(f"not accepted: {results}")
        assert self.received == b"secret", self.received
        self.send(wire, b"answer")
        assert results[0].received == b"answer"
        return wire, results[0]

    def refused(self, client: TLSClient, host: str = "a.example", port: int = 443) -> str:
        """Connect in vain for the certificate's sake; returns the detail. The server has received nothing."""
        error = self.failed(client, host, port)
        assert error.kind is Kind.TLS_CERTIFICATE_ERROR, error
        return error.detail

    def failed(self, client: TLSClient, host: str = "a.example", port: int = 443) -> ProxyError:
        """Connect in vain; returns the error. The server has received nothing."""
        wire, results = self.connect(client, host, port)
        if not results or not isinstance(results[0], ProxyError):
            raise AssertionError(f"not refused: {results}")
        self.exchange(wire)
        assert self.received == b"", self.received
        return results[0]
