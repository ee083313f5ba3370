"""The signature of an image: section type 4, as nitro-cli's ``build-enclave --signing-certificate`` writes it.

The section is a CBOR array of one map: ``signing_certificate`` (PEM) and ``signature`` (COSE_Sign1 without a tag,
RFC 9052 section 4.2), each as an array of integers, for that is how serde writes a Rust ``Vec<u8>``. The payload is
the map ``{"register_index": 0, "register_value": PCR0}``. ECDSA with P-256, P-384 or P-521 signs it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from nitroproxy.image.errors import ImageError

#: The header parameter of COSE that names the algorithm (RFC 9052 section 3.1).
_ALGORITHM: Final = 1
#: By curve: COSE's number of the algorithm (RFC 9053 section 2.1), its hash, and bytes of each half of a signature.
_ALGORITHMS: Final[dict[str, tuple[int, hashes.HashAlgorithm, int]]] = {
    "secp256r1": (-7, hashes.SHA256(), 32),
    "secp384r1": (-35, hashes.SHA384(), 48),
    "secp521r1": (-36, hashes.SHA512(), 66),
}


@dataclass(frozen=True)
class Signature:
    """A signature section.

    :ivar pem: the signing certificate as the section has it.
    :ivar sign1: the COSE_Sign1 structure.
    """

    certificate: x509.Certificate
    pem: bytes
    sign1: bytes

    @property
    def certificate_der(self) -> bytes:
        """What PCR8 covers."""
        return self.certificate.public_bytes(Encoding.DER)

    def pack(self) -> bytes:
        """The section's data."""
        return cbor2.dumps([{"signing_certificate": list(self.pem), "signature": list(self.sign1)}])

    def verify(self, pcr0: str) -> None:
        """Check that the certificate's key has signed *pcr0*. Whether to trust the certificate is left to the caller.

        :raises ImageError: it has not, or has signed something else.
        """
        protected, payload, signature = _sign1(self.sign1)
        key = self.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _ALGORITHMS:
            raise ImageError("signature: the certificate's key must be of P-256, P-384 or P-521")
        number, digest, half = _ALGORITHMS[key.curve.name]
        if _load(protected) != {_ALGORITHM: number}:
            raise ImageError(f"signature: its algorithm is not that of the certificate's key, {key.curve.name}")
        if len(signature) != 2 * half:
            raise ImageError(f"signature: expected {2 * half} bytes, got {len(signature)}")
        der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        try:
            key.verify(der, _to_be_signed(protected, payload), ec.ECDSA(digest))
        except InvalidSignature:
            raise ImageError("signature: it was not made with the key of its certificate") from None
        if payload != _payload(pcr0):
            raise ImageError("signature: it is of another image: PCR0 is not the one that was signed")


def sign(pcr0: str, certificate_pem: bytes, key_pem: bytes) -> Signature:
    """Sign an image.

    :param pcr0: its PCR0 in hexadecimal.
    :param key_pem: the private key of the certificate, not encrypted.
    :raises ImageError: certificate and key cannot be used, or do not belong together.
    """
    certificate = _certificate(certificate_pem)
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise ImageError(f"private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _ALGORITHMS:
        raise ImageError("private key: expected an EC key of P-256, P-384 or P-521")
    if key.public_key() != certificate.public_key():
        raise ImageError("private key: it is not the key of the signing certificate")
    number, digest, half = _ALGORITHMS[key.curve.name]
    protected, payload = cbor2.dumps({_ALGORITHM: number}), _payload(pcr0)
    r, s = decode_dss_signature(key.sign(_to_be_signed(protected, payload), ec.ECDSA(digest)))
    signature = r.to_bytes(half) + s.to_bytes(half)
    return Signature(certificate, certificate_pem, cbor2.dumps([protected, {}, payload, signature]))


def read_signature(raw: bytes) -> Signature:
    """Read a section's data, of bounded size; nothing is verified yet.

    :raises ImageError: it is not what nitro-cli writes.
    """
    entries = _load(raw)
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise ImageError("signature: expected an array of one map")
    entry = entries[0]
    if set(entry) != {"signing_certificate", "signature"}:
        raise ImageError("signature: expected signing_certificate and signature, and no other field")
    pem = _octets(entry["signing_certificate"], "signing_certificate")
    return Signature(_certificate(pem), pem, _octets(entry["signature"], "signature"))


def _payload(pcr0: str) -> bytes:
    return cbor2.dumps({"register_index": 0, "register_value": list(bytes.fromhex(pcr0))})


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload])


def _sign1(raw: bytes) -> tuple[bytes, bytes, bytes]:
    match _load(raw):
        case [bytes() as protected, dict() as unprotected, bytes() as payload, bytes() as signature] if not unprotected:
            return protected, payload, signature
    raise ImageError("signature: expected COSE_Sign1 without unprotected headers")


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ImageError(f"signing certificate: {error}") from None


def _octets(value: Any, name: str) -> bytes:
    try:
        return bytes(value if isinstance(value, list) else [256])
    except (ValueError, TypeError):
        raise ImageError(f"signature: {name}: expected an array of bytes") from None


def _load(raw: bytes) -> Any:
    """One CBOR item and nothing after it."""
    stream = io.BytesIO(raw)
    try:
        item = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise ImageError(f"signature: not CBOR: {type(error).__name__}") from None
    if stream.read(1):
        raise ImageError("signature: bytes follow the CBOR item")
    return item
