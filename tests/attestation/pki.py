"""An attestation PKI of our own: root > region > zone > instance > leaf, as AWS has it.

And documents signed with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

#: When the leaf becomes valid; a document is made a minute later, unless it says otherwise.
T0: Final = datetime(2026, 11, 27, 12, tzinfo=UTC)
PROTECTED: Final = bytes.fromhex("a1013822")

Digest = type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]
SHA384: Final[Digest] = hashes.SHA384

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of this name, the same for the whole process."""
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Plan:
    """What a certificate is made of.

    :ivar days: when it is valid, in days from `T0`.
    :ivar usage: its keyUsage; None for none.
    :ivar critical: whether keyUsage is critical; None for what AWS does: critical in CAs only.
    :ivar extra: more extensions, and whether they are critical.
    """

    subject: str
    issuer: str
    public: CertificatePublicKeyTypes
    signer: CertificateIssuerPrivateKeyTypes
    ca: bool = True
    length: int | None = None
    days: tuple[float, float] = (-1, 20)
    usage: Collection[str] | None = ("digital_signature", "key_cert_sign", "crl_sign")
    critical: bool | None = None
    constraints: bool = True
    constraints_critical: bool = True
    extra: Collection[tuple[x509.ExtensionType, bool]] = ()
    digest: Digest = SHA384

    def certificate(self) -> bytes:
        """Its DER."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.issuer)]))
            .public_key(self.public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(T0 + timedelta(days=self.days[0]))
            .not_valid_after(T0 + timedelta(days=self.days[1]))
        )
        if self.constraints:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.length), self.constraints_critical)
        if self.usage is not None:
            usage = x509.KeyUsage(**{name: name in self.usage for name in _USAGES})
            builder = builder.add_extension(usage, self.ca if self.critical is None else self.critical)
        for extension, critical in self.extra:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.signer, self.digest()).public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Pki:
    """A chain, and the key of its leaf."""

    cabundle: tuple[bytes, ...]
    leaf: bytes
    leaf_key: ec.EllipticCurvePrivateKey

    @property
    def roots(self) -> frozenset[bytes]:
        """What a verifier must trust to accept its documents."""
        return frozenset({hashlib.sha256(self.cabundle[0]).digest()})


def pki(**changes: Mapping[str, Any]) -> Pki:
    """A chain of which some certificates are made otherwise, for example ``zone={"ca": False}``."""
    plans = {
        "root": Plan("root", "root", key("root").public_key(), key("root"), days=(-900, 900)),
        "region": Plan("region", "root", key("region").public_key(), key("root"), length=2),
        "zone": Plan("zone", "region", key("zone").public_key(), key("region"), length=1),
        "instance": Plan(
            "instance", "zone", key("instance").public_key(), key("zone"), length=0, usage=("key_cert_sign",)
        ),
        "leaf": Plan(
            "leaf",
            "instance",
            key("leaf").public_key(),
            key("instance"),
            ca=False,
            days=(0, 0.125),
            usage=("digital_signature",),
        ),
    }
    *cas, leaf = (replace(plan, **changes.get(name, {})).certificate() for name, plan in plans.items())
    return Pki(tuple(cas), leaf, key("leaf"))


def pki_at(moment: datetime) -> Pki:
    """A chain whose leaf becomes valid a minute before *moment*."""
    shift = (moment - T0) / timedelta(days=1) - 1 / 1440
    days = {"root": (-900, 900), "leaf": (0, 0.125)}
    names = ("root", "region", "zone", "instance", "leaf")
    spans = {name: days.get(name, (-1, 20)) for name in names}
    return pki(**{name: {"days": (first + shift, last + shift)} for name, (first, last) in spans.items()})


def fields(chain: Pki) -> dict[str, Any]:
    """The payload of a document that keeps every rule."""
    return {
        "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
        "digest": "SHA384",
        "timestamp": milliseconds(T0) + 60_000,
        "pcrs": {index: bytes([index + 1]) * 48 for index in range(16)},
        "certificate": chain.leaf,
        "cabundle": list(chain.cabundle),
        "public_key": None,
        "user_data": b"u",
        "nonce": b"n" * 20,
    }


def milliseconds(time: datetime) -> int:
    """*time* as documents have it."""
    return round(time.timestamp() * 1000)


@dataclass(frozen=True)
class Raw:
    """CBOR that is written as it is."""

    data: bytes


def encode(pairs: Mapping[Any, Any] | Iterable[tuple[Any, Any]], *, indefinite: bool = True) -> bytes:
    """A map of these pairs, in which keys may come twice and keys and values may be `Raw`."""
    items = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    body = b"".join(item.data if isinstance(item, Raw) else cbor2.dumps(item) for pair in items for item in pair)
    return b"\xbf" + body + b"\xff" if indefinite else bytes([0xA0 + len(items)]) + body


def sign(
    payload: bytes,
    private: ec.EllipticCurvePrivateKey,
    *,
    protected: bytes = PROTECTED,
    digest: Digest = SHA384,
    external: bytes = b"",
    context: str = "Signature1",
) -> bytes:
    """The signature over *payload*, r and s."""
    message = cbor2.dumps([context, protected, external, payload])
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(digest())))
    size = (private.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def cose(payload: object, signature: object, protected: object = PROTECTED, unprotected: object = None) -> bytes:
    """The envelope."""
    return cbor2.dumps([protected, {} if unprotected is None else unprotected, payload, signature])


def document(
    chain: Pki,
    pairs: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None = None,
    *,
    indefinite: bool = True,
    tail: bytes = b"",
) -> bytes:
    """A document with the payload *pairs*, signed with the chain's leaf."""
    payload = encode(fields(chain) if pairs is None else pairs, indefinite=indefinite) + tail
    return cose(payload, sign(payload, chain.leaf_key))
