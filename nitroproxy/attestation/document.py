"""Reads an attestation document: the envelope, and the payload's fields, each within its limits. Proves nothing yet.

The rules are AWS's ("Verifying the root of trust", Syntactical validation) where the documents of real NSMs keep to
them. They do not in two places. Fields that were not asked for are present and null in every one. And since 2025 the
payload is a map of indefinite length, before of definite length: both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from nitroproxy.attestation.cbor import decode, encode
from nitroproxy.attestation.refusal import Refused, Rule

#: The longest document, in bytes. The NSM's own buffer is 12,288; documents of 4,394 to 5,232 are usual.
MAX_DOCUMENT: Final = 16384

#: The protected header: {1: -35}, ES384, and nothing else (RFC 9052 section 3.1, RFC 9053 section 2.1).
PROTECTED: Final = bytes.fromhex("a1013822")

_SIGNATURE_BYTES: Final = 96
_TAG_18: Final = b"\xd2"  # COSE_Sign1; it may stand before the array, or not.

_MANDATORY: Final = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL: Final = frozenset({"public_key", "user_data", "nonce"})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000: Final = 253_402_300_800_000  # In milliseconds since 1970: `datetime` goes no further.
_PCR_BYTES: Final = (32, 48, 64)
_MAX_PCRS: Final = 32
_MAX_CERTIFICATE: Final = 1024
_MAX_CABUNDLE: Final = 8


@dataclass(frozen=True)
class Document:
    """What a document says. Nothing of it is to be believed before chain and signature are verified.

    :ivar payload: the bytes that are signed.
    :ivar signature: r and s, 48 bytes each. (r, n-s) verifies too, so a document's bytes never identify it.
    :ivar timestamp: when the NSM signed it, by the NSM's clock.
    :ivar pcrs: the measurements by their index.
    :ivar certificate: DER of the certificate whose key signed it.
    :ivar cabundle: DER of its issuers, the root first.
    """

    payload: bytes
    signature: bytes
    module_id: str
    timestamp: datetime
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def read_document(data: bytes) -> Document:
    """Take *data* apart.

    :raises Refused: for the first rule that it breaks, from ``size`` to ``nonce``.
    """
    payload, signature = _read_envelope(data)
    fields = _read_payload(payload)
    return Document(
        payload=payload,
        signature=signature,
        module_id=_module_id(fields),
        timestamp=_timestamp(fields),
        pcrs=_pcrs(fields["pcrs"]),
        cabundle=_cabundle(fields["cabundle"]),
        certificate=_octets(fields["certificate"], "certificate", 1, _MAX_CERTIFICATE),
        public_key=_optional_octets(fields, "public_key", 1, 1024),
        user_data=_optional_octets(fields, "user_data", 0, 512),
        nonce=_optional_octets(fields, "nonce", 0, 512),
    )


def _read_envelope(data: bytes) -> tuple[bytes, bytes]:
    """Payload and signature of a COSE_Sign1 structure."""
    if type(data) is not bytes or not 0 < len(data) <= MAX_DOCUMENT:
        size = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise Refused("size", f"expected 1 to {MAX_DOCUMENT} bytes, got {size}")
    body = data.removeprefix(_TAG_18)
    parts, _ = decode(body, 2)
    if type(parts) is not list or len(parts) != 4:
        raise Refused("envelope", "expected a COSE_Sign1 structure, an array of four")
    protected, unprotected, payload, signature = parts
    if type(protected) is not bytes or protected != PROTECTED:
        raise Refused("envelope", "the protected header is not {1: -35} (ES384)")
    if type(unprotected) is not dict or unprotected:
        raise Refused("envelope", "the unprotected header is not empty")
    if type(payload) is not bytes or not payload:
        raise Refused("envelope", "the payload is not a byte string, or is empty")
    if type(signature) is not bytes or len(signature) != _SIGNATURE_BYTES:
        raise Refused("envelope", f"the signature is not a byte string of {_SIGNATURE_BYTES}")
    # Trailing bytes, indefinite lengths, lengths in more bytes than they need: there is one way to write it.
    if encode(parts) != body:
        raise Refused("envelope", "it is not in the shortest encoding, or bytes follow it")
    return payload, signature


def _read_payload(payload: bytes) -> dict[str, object]:
    fields, length = decode(payload, 3)
    if type(fields) is not dict or any(type(name) is not str for name in fields):
        raise Refused("payload", "expected a map with text keys")
    if length != len(payload):
        raise Refused("payload", f"{len(payload) - length} bytes follow the map")
    missing = sorted(name for name in _MANDATORY if fields.get(name) is None)
    if missing:
        raise Refused("fields", f"missing or null: {', '.join(missing)}")
    unknown = sorted(fields.keys() - _MANDATORY - _OPTIONAL)
    if unknown:
        raise Refused("fields", f"unknown: {', '.join(unknown)}")
    if type(fields["digest"]) is not str or fields["digest"] != "SHA384":
        raise Refused("digest", f"expected 'SHA384', got {fields['digest']!r}")
    return fields


def _module_id(fields: Mapping[str, object]) -> str:
    value = fields["module_id"]
    if type(value) is not str or not value:
        raise Refused("module_id", "expected a text that is not empty")
    return value


def _timestamp(fields: Mapping[str, object]) -> datetime:
    value = fields["timestamp"]
    if type(value) is not int or not 0 < value < _YEAR_10000:
        raise Refused("timestamp", f"expected milliseconds since 1970, before the year 10000, got {value!r}")
    return _EPOCH + timedelta(milliseconds=value)


def _pcrs(value: object) -> Mapping[int, bytes]:
    if type(value) is not dict or not 1 <= len(value) <= _MAX_PCRS:
        raise Refused("pcrs", f"expected a map of 1 to {_MAX_PCRS}")
    for index, pcr in value.items():
        # isinstance would take True for 1.
        if type(index) is not int or not 0 <= index < _MAX_PCRS:
            raise Refused("pcrs", f"expected an index 0 to {_MAX_PCRS - 1}, got {index!r}")
        if type(pcr) is not bytes or len(pcr) not in _PCR_BYTES:
            raise Refused("pcrs", f"PCR{index} is not a byte string of 32, 48 or 64")
    return MappingProxyType(dict(sorted(value.items())))


def _cabundle(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= _MAX_CABUNDLE:
        raise Refused("cabundle", f"expected an array of 1 to {_MAX_CABUNDLE}")
    return tuple(_octets(der, "cabundle", 1, _MAX_CERTIFICATE) for der in value)


def _optional_octets(fields: Mapping[str, object], name: Rule, least: int, most: int) -> bytes | None:
    value = fields.get(name)
    return None if value is None else _octets(value, name, least, most)


def _octets(value: object, rule: Rule, least: int, most: int) -> bytes:
    if type(value) is not bytes or not least <= len(value) <= most:
        got = f"{len(value)} bytes" if type(value) is bytes else type(value).__name__
        raise Refused(rule, f"expected {least} to {most} bytes, got {got}")
    return value
