"""A throw-away certificate authority for the local upstream, and the ways in which its certificates can be wrong.

Development only: keys live in memory and are worth nothing. It knows nothing of listeners or TLS libraries; what it
gives is PEM.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR: Final = datetime.timedelta(hours=1)
_LIFETIME: Final = datetime.timedelta(days=30)
_LOCAL_NAMES: Final = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True)
class ServerIdentity:
    """A server's certificate and private key, one PEM text."""

    pem: bytes


class ThrowAwayAuthority:
    """A CA made for one run and forgotten with it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("nitroproxy throw-away CA")
        self._now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            self._builder(self._name, self._key.public_key(), self._now - _HOUR, self._now + _LIFETIME)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The CA's own certificate, which a client has to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        names: Sequence[x509.GeneralName] = _LOCAL_NAMES,
        *,
        not_after: datetime.datetime | None = None,
        self_signed: bool = False,
    ) -> ServerIdentity:
        """A new key and a certificate for it.

        :param names: the subjectAltName; none at all when empty.
        :param not_after: when it expires, in UTC; a month from now when None.
        :param self_signed: signed with its own key, not by this CA.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("localhost")
        issuer, signer = (subject, key) if self_signed else (self._name, self._key)
        until = not_after or self._now + _LIFETIME
        builder = (
            self._builder(subject, key.public_key(), min(self._now, until) - _HOUR, until)
            .issuer_name(issuer)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return ServerIdentity(private + certificate.public_bytes(serialization.Encoding.PEM))

    def expired(self) -> ServerIdentity:
        """Right in all but its dates: it expired an hour ago."""
        return self.issue(not_after=self._now - _HOUR)

    @staticmethod
    def _builder(
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        not_before: datetime.datetime,
        not_after: datetime.datetime,
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(subject_name=subject, public_key=key)
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


#: How to make the certificate of each listener that must be refused, by the listener's name.
MAKE_BAD: Final[dict[str, Callable[[ThrowAwayAuthority], ServerIdentity]]] = {
    "expired": ThrowAwayAuthority.expired,
    "self_signed": lambda authority: authority.issue(self_signed=True),
    "wrong_name": lambda authority: authority.issue([x509.DNSName("wrong.example")]),
    "no_san": lambda authority: authority.issue([]),
    "email_only_san": lambda authority: authority.issue([x509.RFC822Name("ops@localhost")]),
    "malformed_wildcard": lambda authority: authority.issue([x509.DNSName("*.*.localhost")]),
}


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
