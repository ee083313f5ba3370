"""What binds an attestation document to a TLS connection: the certificate that carries one, and the challenge.

The enclave makes a self-signed certificate whose extension id-pe-cmw (RFC 9999) holds a document; the document's
public_key is the certificate's key, so that whoever completes a handshake with that key is the enclave of the document.
A challenge is a document with a nonce of the client's that names the key and the connection: it proves the same of the
present moment, and cannot be passed on from another connection.

Nothing else in such a certificate is believed: not its names, its dates or its own signature.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nitroproxy.attestation.cbor import decode, encode
from nitroproxy.attestation.document import MAX_DOCUMENT
from nitroproxy.attestation.policy import Policy
from nitroproxy.attestation.refusal import Refused
from nitroproxy.attestation.roots import AWS_ROOTS
from nitroproxy.attestation.verification import Attestation, verify

_T = TypeVar("_T")

#: user_data that begins with this is nitroproxy's own; an application's never does.
RESERVED: Final = b"nitroproxy/"
#: The beginning of user_data in the document of a certificate; what the application has registered follows.
IDENTITY: Final = b"nitroproxy/tls/1"
#: The beginning of user_data in a challenge's document; the connection's exported keying material follows.
CHANNEL: Final = b"nitroproxy/channel/1"
#: Bytes that an application may register: with `IDENTITY` as many as user_data may have.
MOST_REGISTERED: Final = 512 - len(IDENTITY)

#: What identifies a connection to both of its ends, and to no other connection's (RFC 9266 section 2).
EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"
EXPORTER_BYTES: Final = 32

#: id-pe-cmw (RFC 9999), with a document as a CBOR record: media type, bytes, and the bit for "evidence".
CMW: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.35")
_MEDIA_TYPE: Final = "application/aws-nitro-document"
_EVIDENCE: Final = 4

#: Bytes of a certificate, at most.
_MAX_CERTIFICATE: Final = MAX_DOCUMENT + 4096
#: How much later than the enclave's a client's clock may be for those clients that do look at a certificate's dates.
_BACKDATED: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Identity:
    """What a certificate proves: who completes a handshake with its key is the enclave of the document.

    :ivar attestation: of the document.
    :ivar document: as it was sent.
    :ivar spki: the key (SubjectPublicKeyInfo, DER).
    :ivar user_data: what the application in the enclave has registered; empty if nothing.
    """

    attestation: Attestation
    document: bytes
    spki: bytes
    user_data: bytes


def spki_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key as documents and pins have it."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def make_certificate(key: ec.EllipticCurvePrivateKey, document: bytes, now: datetime, not_after: datetime) -> bytes:
    """A certificate, DER, that carries *document*, whose public_key is that of *key*.

    :param not_after: when the document's own chain ends.
    """
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nitroproxy enclave")])
    record = encode([_MEDIA_TYPE, document, _EVIDENCE])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(max(not_after, now))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.UnrecognizedExtension(CMW, _octet_string(record)), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def verify_certificate(der: bytes, policy: Policy, *, now: datetime, roots: Collection[bytes] = AWS_ROOTS) -> Identity:
    """Verify a certificate that a server has sent. Takes a few milliseconds; keeps no state.

    What it proves holds for a connection whose handshake was completed with the certificate's key.

    :param roots: see `verify`.
    :raises Refused: as `verify` does, and for the rules ``extension`` and ``binding``.
    """
    return _refusing(lambda: _verify_certificate(der, policy, now, roots))


def verify_challenge(
    document: bytes,
    policy: Policy,
    *,
    now: datetime,
    nonce: bytes,
    spki: bytes,
    exported: bytes,
    roots: Collection[bytes] = AWS_ROOTS,
) -> Attestation:
    """Verify the answer to a challenge on a connection.

    :param nonce: that was sent, at least 16 bytes.
    :param spki: the key with which the connection's handshake was completed.
    :param exported: the client's own exported keying material of that connection: see `EXPORTER_LABEL`.
    :raises Refused: as `verify` does, and for the rule ``binding``.
    """
    attestation = verify(document, policy, now=now, nonce=nonce, roots=roots)
    if attestation.public_key != spki:
        raise Refused("binding", "the answer to the challenge names another key than the connection's")
    expected = CHANNEL + exported
    if len(exported) != EXPORTER_BYTES or not hmac.compare_digest(attestation.user_data or b"", expected):
        raise Refused("binding", "the answer to the challenge is for another connection")
    return attestation


def _verify_certificate(der: bytes, policy: Policy, now: datetime, roots: Collection[bytes]) -> Identity:
    document, spki = _take_apart(der)
    attestation = verify(document, policy, now=now, roots=roots)
    if attestation.public_key != spki:
        raise Refused("binding", "the document is for another key than the certificate's: it was copied")
    user_data = attestation.user_data or b""
    if not user_data.startswith(IDENTITY):
        raise Refused(
            "binding", "the document was not made for TLS: its user_data does not begin with nitroproxy/tls/1"
        )
    return Identity(attestation, document, spki, user_data[len(IDENTITY) :])


def _take_apart(der: bytes) -> tuple[bytes, bytes]:
    """The document in a certificate, and the certificate's key."""
    if not 0 < len(der) <= _MAX_CERTIFICATE:
        raise Refused("size", f"a certificate of {len(der)} bytes, expected 1 to {_MAX_CERTIFICATE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        extensions = certificate.extensions
    except Exception as error:
        # The parser's exceptions are not a closed set.
        raise Refused("certificate", f"the server's certificate: {type(error).__name__}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refused("binding", "the key of the server's certificate is not one on P-256")
    try:
        extension = extensions.get_extension_for_oid(CMW).value
    except x509.ExtensionNotFound as error:
        raise Refused("extension", "the server's certificate carries no attestation document") from error
    assert isinstance(extension, x509.UnrecognizedExtension)
    return _document_in(extension.value), spki_of(key)


def _document_in(value: bytes) -> bytes:
    """The document in the extension's *value*: there is one way to write it."""
    header = 2 if value[1:2] < b"\x80" else 2 + (value[1] & 0x7F)
    content = value[header:]
    if _octet_string(content) != value:
        raise Refused("extension", "not an OCTET STRING in DER, the CBOR form of a CMW")
    record, length = decode(content, 1)
    if type(record) is not list or len(record) != 3 or length != len(content):
        raise Refused("extension", "not a CMW record of three")
    media_type, document, indicator = record
    if type(media_type) is not str or media_type != _MEDIA_TYPE:
        raise Refused("extension", f"the CMW's type is not {_MEDIA_TYPE}")
    if type(document) is not bytes or type(indicator) is not int or indicator != _EVIDENCE or encode(record) != content:
        raise Refused("extension", "the CMW record is not a document as evidence, in the shortest encoding")
    return document


def _octet_string(content: bytes) -> bytes:
    """*content* as an OCTET STRING in DER (X.690 section 8.7)."""
    size = len(content)
    if size < 0x80:
        return b"\x04" + bytes([size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"\x04" + bytes([0x80 | len(octets)]) + octets + content


def _refusing(check: Callable[[], _T]) -> _T:
    """What *check* returns; every exception but `Refused` becomes one."""
    try:
        return check()
    except (Refused, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # BaseException: a panic in a library written in Rust is not an Exception.
        raise Refused("internal", f"{type(error).__name__}: {error}") from error
