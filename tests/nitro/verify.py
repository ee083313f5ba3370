"""Checks an attestation document with the standard chain building of `cryptography`: independent of the code under
test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


class Unverified(Exception):
    """The document is not what it should be; the message says how."""


def verify_document(document: bytes, root_pem: bytes) -> Mapping[str, Any]:
    """The payload of a document whose chain leads to the root.

    :raises Unverified: the chain or the signature is wrong.
    """
    protected, _, payload, signature = cbor2.loads(document)
    found: Mapping[str, Any] = cbor2.loads(payload)
    chain = [x509.load_der_x509_certificate(der) for der in [*found["cabundle"], found["certificate"]]]
    if chain[0] != x509.load_pem_x509_certificate(root_pem):
        raise Unverified("the chain begins with another root")
    try:
        for issuer, subject in itertools.pairwise(chain):
            subject.verify_directly_issued_by(issuer)
        key = chain[-1].public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        der = encode_dss_signature(int.from_bytes(signature[:48]), int.from_bytes(signature[48:]))
        key.verify(der, cbor2.dumps(["Signature1", protected, b"", payload]), ec.ECDSA(hashes.SHA384()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unverified(f"chain or signature: {type(error).__name__}") from None
    return found
