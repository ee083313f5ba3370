"""The key for which KMS encrypts its answers, and what a request says of it.

AES-CBC has no integrity: a changed envelope may open to something else. So an answer of KMS must have come over TLS
that the enclave itself has verified, and every failure to open one looks like any other.
"""

from __future__ import annotations

import base64
import json
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nitroproxy.kms.envelope import BLOCK_BYTES, NotOpened, read

#: KMS takes RSA-2048 and no other.
_KEY_BITS: Final = 2048
_EXPONENT: Final = 65537
_AES_KEY_BYTES: Final = 32


class RecipientKey:
    """An RSA key. It exists in memory only.

    :param key: given by tests; made anew otherwise, which takes some 100 ms.
    :ivar public_key: for an attestation document: SubjectPublicKeyInfo in DER.
    """

    def __init__(self, key: rsa.RSAPrivateKey | None = None) -> None:
        self._key = key or rsa.generate_private_key(_EXPONENT, _KEY_BITS)
        self.public_key = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def open(self, envelope: bytes) -> bytes:
        """The secret in *envelope*, the bytes of a ``CiphertextForRecipient``. Takes about 1 ms.

        :raises NotOpened: if it is none, or is for another key.
        """
        parts = read(envelope)
        try:
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
            secret = self._key.decrypt(parts.encrypted_key, oaep)
            if len(secret) != _AES_KEY_BYTES:
                raise NotOpened
            decryptor = Cipher(algorithms.AES(secret), modes.CBC(parts.iv)).decryptor()
            padded = decryptor.update(parts.ciphertext) + decryptor.finalize()
            unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            raise NotOpened from error


def recipient_json(document: bytes) -> bytes:
    """The Recipient of a request to KMS, as its JSON has it.

    :param document: an attestation document with the key's `RecipientKey.public_key`.
    """
    encoded = base64.b64encode(document).decode("ascii")
    return json.dumps({"AttestationDocument": encoded, "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}).encode("ascii")
