"""Envelopes for tests: the stored ones, and one that is changed a field at a time."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from asn1crypto import algos, cms, core
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

_DATA: Final = Path(__file__).parent / "data" / "kms"

#: Real answers of KMS, in its two forms; and one of our own.
REAL: Final = ("kms-response-constructed-content", "kms-response-primitive-content")
OWN: Final = "own-envelope"

Change = Callable[[Any], object]


def stored(name: str) -> bytes:
    """A stored envelope."""
    return base64.b64decode((_DATA / f"{name}.b64").read_text("ascii"))


@cache
def own_key() -> rsa.RSAPrivateKey:
    """The key of our own envelope."""
    key = load_pem_private_key((_DATA / "own-key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def own_plaintext() -> bytes:
    """What is in our own envelope."""
    return bytes.fromhex((_DATA / "own-plaintext.hex").read_text("ascii"))


def changed(change: Change) -> bytes:
    """Our own envelope in DER, with *change* made to its EnvelopedData."""
    info = cms.ContentInfo.load(stored(OWN), strict=True)
    change(info["content"])
    data: bytes = info.dump(force=True)
    return data


def envelope_for(
    public_key: bytes, plaintext: bytes, *, aes_key: bytes | None = None, pad: bytes | None = None
) -> bytes:
    """What KMS would answer to a request with the key *public_key*, in DER."""
    secret, iv = aes_key or os.urandom(32), os.urandom(16)
    left = 16 - len(plaintext) % 16
    padded = plaintext + (bytes([left]) * left if pad is None else pad)
    used = (secret + bytes(32))[:32]
    encryptor = Cipher(algorithms.AES(used), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    public = load_der_public_key(public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    wrapped = public.encrypt(secret, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))

    def change(enveloped: object) -> None:
        content = enveloped["encrypted_content_info"]  # type: ignore[index]
        content["content_encryption_algorithm"]["parameters"] = iv
        content["encrypted_content"] = ciphertext
        enveloped["recipient_infos"][0].chosen["encrypted_key"] = wrapped  # type: ignore[index]

    return changed(change)


def broken_rules() -> Iterator[tuple[str, bytes]]:
    """Envelopes of which each breaks one rule, and that rule."""
    for label, change in _CHANGES.items():
        yield label, changed(change)
    yield "content type", cms.ContentInfo({"content_type": "data", "content": core.OctetString(b"x")}).dump()
    yield "no content", cms.ContentInfo({"content_type": "enveloped_data"}).dump()


def _set(*path: str | int) -> Callable[[object], Change]:
    """Sets what *path* leads to."""

    def setter(value: object) -> Change:
        def change(enveloped: Any) -> None:
            place = enveloped
            for step in path[:-1]:
                place = getattr(place[step], "chosen", place[step])
            place[path[-1]] = value

        return change

    return setter


_RECIPIENT: Final = ("recipient_infos", 0)
_HOW: Final = (*_RECIPIENT, "key_encryption_algorithm")
_CONTENT: Final = ("encrypted_content_info",)


def _two_recipients(enveloped: Any) -> None:
    enveloped["recipient_infos"].append(enveloped["recipient_infos"][0].copy())


def _no_recipient(enveloped: Any) -> None:
    enveloped["recipient_infos"] = []


def _by_issuer(enveloped: Any) -> None:
    name = {"issuer": cms.Name.build({"common_name": "x"}), "serial_number": 1}
    enveloped["recipient_infos"][0].chosen["rid"] = cms.RecipientIdentifier("issuer_and_serial_number", name)


_CHANGES: Final[dict[str, Change]] = {
    "version": _set("version")("v0"),
    "originator info": _set("originator_info")(cms.OriginatorInfo({"certs": []})),
    "attributes": _set("unprotected_attrs")([cms.CMSAttribute({"type": "content_type", "values": ["data"]})]),
    "two recipients": _two_recipients,
    "no recipient": _no_recipient,
    "recipient by issuer": _by_issuer,
    "recipient's version": _set(*_RECIPIENT, "version")("v0"),
    "PKCS #1 v1.5": _set(*_HOW)(cms.KeyEncryptionAlgorithm({"algorithm": "rsaes_pkcs1v15"})),
    "OAEP without parameters": _set(*_HOW)(cms.KeyEncryptionAlgorithm({"algorithm": "rsaes_oaep"})),
    "OAEP with SHA-1": _set(*_HOW, "parameters", "hash_algorithm")({"algorithm": "sha1"}),
    "MGF1 with SHA-1": _set(*_HOW, "parameters", "mask_gen_algorithm", "parameters")({"algorithm": "sha1"}),
    "OAEP with a label": _set(*_HOW, "parameters", "p_source_algorithm")(
        algos.PSourceAlgorithm({"algorithm": "p_specified", "parameters": b"label"})
    ),
    "short encrypted key": _set(*_RECIPIENT, "encrypted_key")(bytes(255)),
    "long encrypted key": _set(*_RECIPIENT, "encrypted_key")(bytes(257)),
    "inner content type": _set(*_CONTENT, "content_type")("signed_data"),
    "AES-128": _set(*_CONTENT, "content_encryption_algorithm", "algorithm")("aes128_cbc"),
    "AES-256-GCM": _set(*_CONTENT, "content_encryption_algorithm", "algorithm")("aes256_gcm"),
    "short IV": _set(*_CONTENT, "content_encryption_algorithm", "parameters")(core.OctetString(bytes(15))),
    "long IV": _set(*_CONTENT, "content_encryption_algorithm", "parameters")(core.OctetString(bytes(17))),
    "no IV": _set(*_CONTENT, "content_encryption_algorithm")(cms.EncryptionAlgorithm({"algorithm": "aes256_cbc"})),
    "no ciphertext": _set(*_CONTENT, "encrypted_content")(b""),
    "absent ciphertext": _set(*_CONTENT, "encrypted_content")(None),
    "part of a block": _set(*_CONTENT, "encrypted_content")(bytes(17)),
}
