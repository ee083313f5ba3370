"""Reads the CMS structure (RFC 5652) in which KMS sends a secret: finds its three parts and decrypts nothing.

KMS writes BER with indefinite lengths, and the encrypted content in one piece or in several; the parser of the
cryptography package reads DER only. Everything that KMS does not write is refused, also what CMS allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from asn1crypto import cms

#: The longest envelope, in bytes. The longest that KMS makes holds an RSA-4096 private key (about 2,400 bytes), or what
#: Decrypt returns (4,096 bytes at most).
MAX_ENVELOPE: Final = 16384

#: Bytes of an RSA-2048 ciphertext, and of a block of AES.
KEY_BYTES: Final = 256
BLOCK_BYTES: Final = 16


class NotOpened(Exception):
    """What was given is no envelope for this recipient. It says no more: see `nitroproxy.kms.recipient`."""


@dataclass(frozen=True)
class Envelope:
    """The parts of an envelope.

    :ivar encrypted_key: an AES-256 key, encrypted with RSAES-OAEP (SHA-256, MGF1 with SHA-256, no label; RFC 8017).
    :ivar iv: of AES-256-CBC.
    :ivar ciphertext: of AES-256-CBC, padded as PKCS #7 says (RFC 5652 section 6.3).
    """

    encrypted_key: bytes
    iv: bytes
    ciphertext: bytes


def read(data: bytes) -> Envelope:
    """The parts of the envelope *data*.

    :raises NotOpened: if it is anything else than what KMS writes.
    """
    if not 0 < len(data) <= MAX_ENVELOPE:
        raise NotOpened
    try:
        return _read(data)
    except NotOpened:
        raise
    except Exception as error:  # asn1crypto raises ValueError, TypeError, KeyError, RecursionError and others.
        raise NotOpened from error


def _read(data: bytes) -> Envelope:
    info = cms.ContentInfo.load(data, strict=True)
    _want(info["content_type"].native, "enveloped_data")
    enveloped = info["content"]
    _want(enveloped["version"].native, "v2")
    for absent in ("originator_info", "unprotected_attrs"):
        _want(enveloped[absent].native, None)
    _want(len(enveloped["recipient_infos"]), 1)
    _want(enveloped["recipient_infos"][0].name, "ktri")
    encrypted_key = _encrypted_key(enveloped["recipient_infos"][0].chosen)
    content = enveloped["encrypted_content_info"]
    _want(content["content_type"].native, "data")
    algorithm = content["content_encryption_algorithm"]
    _want(algorithm["algorithm"].native, "aes256_cbc")
    iv, ciphertext = algorithm["parameters"].native, content["encrypted_content"].native
    if not isinstance(iv, bytes) or not isinstance(ciphertext, bytes):
        raise NotOpened
    _want(len(iv), BLOCK_BYTES)
    if not ciphertext or len(ciphertext) % BLOCK_BYTES:
        raise NotOpened
    return Envelope(encrypted_key, iv, ciphertext)


def _encrypted_key(recipient: Any) -> bytes:
    """The encrypted key of a KeyTransRecipientInfo (RFC 5652 section 6.2.1), whose algorithm must be RSAES-OAEP with
    SHA-256 throughout (RFC 4055 section 4.1)."""
    _want(recipient["version"].native, "v2")
    _want(recipient["rid"].name, "subject_key_identifier")
    algorithm = recipient["key_encryption_algorithm"]
    _want(algorithm["algorithm"].native, "rsaes_oaep")
    parameters = algorithm["parameters"]
    _want(parameters["hash_algorithm"]["algorithm"].native, "sha256")
    _want(parameters["mask_gen_algorithm"]["algorithm"].native, "mgf1")
    _want(parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native, "sha256")
    _want(parameters["p_source_algorithm"]["algorithm"].native, "p_specified")
    _want(parameters["p_source_algorithm"]["parameters"].native, b"")
    encrypted_key = recipient["encrypted_key"].native
    if not isinstance(encrypted_key, bytes) or len(encrypted_key) != KEY_BYTES:
        raise NotOpened
    return encrypted_key


def _want(found: object, wanted: object) -> None:
    if found != wanted:
        raise NotOpened
