"""A throw-away chain as AWS's: a root, an instance's certificate, an enclave's; P-384 and SHA-384 throughout."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

_OTHER_USES: Final = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Authority:
    """The chain.

    :ivar key: the enclave's.
    :ivar leaf: the enclave's certificate, DER.
    :ivar bundle: root and intermediate, DER, in this order.
    :ivar root_pem: what a verifier trusts.
    """

    key: ec.EllipticCurvePrivateKey
    leaf: bytes
    bundle: list[bytes]
    root_pem: bytes

    @property
    def root_digest(self) -> bytes:
        """What a verifier is given as its root."""
        return hashlib.sha256(self.bundle[0]).digest()


def make_authority(now: datetime.datetime) -> Authority:
    """A chain that is valid two days before and after *now*, so that a time of a day away breaks no rule but age."""
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    root = _certificate("test.nitro-enclaves", keys[0], None, now, 24 * 365)
    middle = _certificate("test.instance", keys[1], (root, keys[0]), now, 48)
    leaf = _certificate("test.enclave", keys[2], (middle, keys[1]), now, 48, ca=False)
    der = [one.public_bytes(Encoding.DER) for one in (root, middle, leaf)]
    return Authority(keys[2], der[2], der[:2], root.public_bytes(Encoding.PEM))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    now: datetime.datetime,
    hours: int,
    *,
    ca: bool = True,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    uses = dict.fromkeys(_OTHER_USES, False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=48))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **uses), critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA384())
    )
