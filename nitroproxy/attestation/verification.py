"""Verifies an attestation document against a policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nitroproxy.attestation.cbor import encode
from nitroproxy.attestation.chain import verify_chain
from nitroproxy.attestation.document import PROTECTED, read_document
from nitroproxy.attestation.policy import Policy, is_debug
from nitroproxy.attestation.refusal import Refused
from nitroproxy.attestation.roots import AWS_ROOTS

#: How far this machine's clock and the NSM's may differ.
SKEW: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Attestation:
    """What a document proves: it is signed by an NSM of AWS, and the policy accepts the image.

    :ivar entry: the name of the policy's entry that it matches.
    :ivar module_id: the NSM's name: the instance's id and the enclave's.
    :ivar timestamp: when the NSM signed the document.
    :ivar pcrs: the measurements by their index, 32, 48 or 64 bytes each.
    :ivar public_key: given by the enclave, as are user_data and nonce; None if it gave none.
    :ivar not_after: when the first of the certificates that prove it ends.
    :ivar root: SHA-256 of the root certificate.
    :ivar debug: whether the enclave runs in debug mode: the host can then read its console, and no image is proven.
    """

    entry: str
    module_id: str
    timestamp: datetime
    pcrs: Mapping[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    not_after: datetime
    root: bytes
    debug: bool


def verify(
    document: bytes,
    policy: Policy,
    *,
    now: datetime,
    nonce: bytes | None = None,
    roots: Collection[bytes] = AWS_ROOTS,
) -> Attestation:
    """Verify *document*, a COSE_Sign1 structure of at most 16,384 bytes, in a few milliseconds of CPU time.

    Keeps no state, so it may be called from several threads. What it proves is true of the time at which the document
    was signed: a caller that keeps the result calls `check_time` again before each use.

    :param now: the time, with a time zone.
    :param nonce: if given, the document must carry exactly these bytes.
    :param roots: the SHA-256 of each trusted root certificate's DER; for tests.
    :raises Refused: for the first rule that is broken; every other exception becomes one, with the rule ``internal``.
    """
    try:
        return _verify(document, policy, now, nonce, roots)
    except (Refused, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # BaseException: a panic in a library written in Rust is not an Exception.
        raise Refused("internal", f"{type(error).__name__}: {error}") from error


def check_time(policy: Policy, now: datetime, *, timestamp: datetime, not_after: datetime) -> None:
    """Check the two times of an `Attestation` by *now*: not too old, nor from the future, and no certificate has ended.

    `verify` calls it. A caller that keeps an attestation calls it again before each use.

    :raises Refused: rule ``age`` or ``validity``.
    """
    signed = f"it was signed at {timestamp:%F %T} UTC"
    if timestamp > now + SKEW:
        raise Refused("age", f"{signed}, in the future by this machine's clock ({now.astimezone(UTC):%F %T} UTC)")
    if policy.max_age is None:
        return
    age = now - timestamp
    if age > policy.max_age:
        limit = f"{policy.max_age.total_seconds():.0f}"
        raise Refused("age", f"{signed}, {age.total_seconds():.0f} s ago; the policy allows {limit} s")
    if now - SKEW > not_after:
        raise Refused("validity", f"{signed}, but a certificate of its chain has ended at {not_after:%F %T} UTC")


def _verify(data: bytes, policy: Policy, now: datetime, nonce: bytes | None, roots: Collection[bytes]) -> Attestation:
    document = read_document(data)
    chain = verify_chain(document.cabundle, document.certificate, document.timestamp, roots)
    _check_signature(chain.key, document.payload, document.signature)
    check_time(policy, now, timestamp=document.timestamp, not_after=chain.not_after)
    if nonce is not None and (not nonce or document.nonce != nonce):
        raise Refused("nonce", "the document's nonce is not the one that was asked for" if nonce else "it is empty")
    entry = policy.match(document.pcrs)
    return Attestation(
        entry=entry.name,
        module_id=document.module_id,
        timestamp=document.timestamp,
        pcrs=document.pcrs,
        public_key=document.public_key,
        user_data=document.user_data,
        nonce=document.nonce,
        not_after=chain.not_after,
        root=chain.root,
        debug=is_debug(document.pcrs),
    )


def _check_signature(key: ec.EllipticCurvePublicKey, payload: bytes, signature: bytes) -> None:
    """ES384 over the Sig_structure (RFC 9052 section 4.4, RFC 9053 section 2.1)."""
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    message = encode(["Signature1", PROTECTED, b"", payload])
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError) as error:
        raise Refused("signature", "the document is not signed with the key of its certificate") from error
