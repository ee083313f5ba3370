"""Client certificates towards destinations: their files read, and refused with the reason when they cannot be used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from nitroproxy.tls.anchors import read_certificates
from nitroproxy.tls.settings import ClientCertificateFiles

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

#: Who must not reach a private key: others at all, the group to write it. A group of its own may read it, as
#: root:nitroproxy 0640 is how a service's user gets at a file that is not its own.
_FORBIDDEN_MODE: Final = stat.S_IRWXO | stat.S_IWGRP


@dataclass(frozen=True)
class Identity:
    """A client certificate.

    :ivar pattern: the key of ``tls.client_certificates``, for messages.
    :ivar chain: the certificate, then those that lead to its authority.
    """

    pattern: str
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey


def load_identity(pattern: str, files: ClientCertificateFiles) -> Identity:
    """The client certificate in *files*.

    :raises ValueError: naming the file and what is wrong with it.
    """
    chain = read_certificates(files.certificate_file)
    key = _read_key(files.key_file)
    if _public(key) != _public(chain[0]):
        raise ValueError(
            f"{files.key_file}: is not the private key of the first certificate in {files.certificate_file}"
        )
    return Identity(pattern, tuple(chain), key)


def _read_key(path: str) -> PrivateKey:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if mode & _FORBIDDEN_MODE:
        raise ValueError(f"{path}: its mode is {mode:04o}, so others can reach the private key: chmod 0600 or 0640")
    if b"-----BEGIN" not in content:
        raise ValueError(f"{path}: holds no private key in PEM")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ValueError(
            f"{path}: the private key is encrypted; store it without a passphrase (openssl pkey -in KEY -out NEW)"
        ) from error
    except Exception as error:
        # Of several types: ValueError, UnsupportedAlgorithm; the file says what was in it, the exception why.
        raise ValueError(f"{path}: holds no private key that can be read: {error}") from error
    if not isinstance(key, PrivateKey):
        raise ValueError(f"{path}: a key of this kind cannot sign TLS handshakes: use ECDSA, RSA or Ed25519")
    return key


def _public(holder: x509.Certificate | PrivateKey) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
