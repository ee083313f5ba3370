"""The certificate chain of a document, from a pinned root down to the key that signed it.

It is judged in the order in which the document gives it: there is no search for a path. ``cryptography``'s own
`x509.verification` cannot be used: it refuses the NSM's leaf, which has no authority key identifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric import ec

from nitroproxy.attestation.certificate import Certificate, read_certificate
from nitroproxy.attestation.refusal import Refused


@dataclass(frozen=True)
class Chain:
    """A chain that leads to a trusted root.

    :ivar key: the leaf's key, with which the document must be signed.
    :ivar not_after: when the first of the certificates ends.
    :ivar root: SHA-256 of the root's DER.
    """

    key: ec.EllipticCurvePublicKey
    not_after: datetime
    root: bytes


def verify_chain(cabundle: Sequence[bytes], leaf: bytes, at: datetime, roots: Collection[bytes]) -> Chain:
    """Verify *leaf* through *cabundle* (the root first, the leaf's issuer last) as of the time *at*.

    :param roots: the SHA-256 of each trusted root's DER.
    :raises Refused: rule ``root``, ``certificate``, ``chain``, ``constraints``, ``usage`` or ``validity``.
    """
    root = hashlib.sha256(cabundle[0]).digest()
    if root not in roots:
        raise Refused("root", f"the chain begins with {root.hex()} (SHA-256), which is not a trusted root")
    path = [read_certificate(der, f"cabundle[{place}]") for place, der in enumerate(cabundle)]
    path.append(read_certificate(leaf, "certificate"))
    _check_issued(path[0], path[0])
    for issuer, issued in pairwise(path):
        _check_issued(issued, issuer)
    for below, ca in enumerate(reversed(path[:-1])):
        ca.check_ca(below)
    path[-1].check_leaf()
    for certificate in path:
        certificate.check_time(at)
    return Chain(path[-1].key, min(certificate.not_after for certificate in path), root)


def _check_issued(certificate: Certificate, issuer: Certificate) -> None:
    """The root is issued by itself, every other one by the one before it."""
    if certificate.self_issued != (certificate is issuer):
        wrong = "is its own issuer" if certificate.self_issued else "is a root, but not its own issuer"
        raise Refused("chain", f"{certificate.place} {wrong}")
    try:
        # Compares the names, the inner and the outer algorithm, and verifies the signature.
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except Exception as error:
        raise Refused("chain", f"{certificate.place} is not issued by {issuer.place}") from error
