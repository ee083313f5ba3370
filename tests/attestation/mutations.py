"""Real documents, changed after they were signed: none of the results may be accepted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.attestation.cases import Case
from tests.attestation.pki import PROTECTED, Raw, cose, encode
from tests.attestation.real import Real

#: The order of P-384 (FIPS 186-5, SP 800-186 section 3.2.1.4).
_N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973

_HEADERS: Final = (
    *(b"", cbor2.dumps({}), cbor2.dumps({1: -7}), cbor2.dumps({1: -36}), cbor2.dumps({1: -8}), cbor2.dumps({1: 5})),
    *(cbor2.dumps({1: -257}), cbor2.dumps({1: None}), cbor2.dumps({1: -35, 4: b"k"}), cbor2.dumps({1: -35, 2: [1]})),
    *(cbor2.dumps({"1": -35}), cbor2.dumps({1: "ES384"}), bytes.fromhex("bf013822ff"), bytes.fromhex("a118013822")),
    *(bytes.fromhex("a101390022"), bytes.fromhex("a2013822013822"), bytes.fromhex("a101382200")),
)
#: Heads of CBOR items on which decoders differ: long and indefinite lengths, tags, simple values, big numbers.
_HEADS: Final = (
    *(b"\x5f", b"\x7f", b"\x9f", b"\xbf", b"\xff", b"\x1b\x7f" + b"\xff" * 7),
    *(head + b"\xff" * 8 for head in (b"\x5b", b"\x7b", b"\x9b", b"\xbb")),
    *(b"\xc2", b"\xd8\x1c", b"\xd8\x1d\0", b"\xd8\x23\x41a", b"\xf4", b"\xf6", b"\xf7", b"\xf9\x7e\0", b"\xf8\xff"),
)


class Mutator:
    """Makes documents from a real one.

    :param other: another real one, to take parts from.
    """

    def __init__(self, real: Real, other: Real, now: datetime) -> None:
        self._real = real
        self._data = real.data
        self._policy = real.policy()
        self._now = now
        _, _, self._payload, self._signature = cbor2.loads(real.data)
        _, _, self._other_payload, self._other_signature = cbor2.loads(other.data)
        self._fields: dict[str, Any] = cbor2.loads(self._payload)
        #: The four parts, encoded.
        self._parts = [cbor2.dumps(PROTECTED), b"\xa0", cbor2.dumps(self._payload), cbor2.dumps(self._signature)]

    def bits(self, *, every: bool) -> Iterator[Case]:
        """Each byte with one bit changed; with *every*, each bit in turn."""
        for place in range(len(self._data)):
            for bit in range(8) if every else (place % 8,):
                changed = bytes([self._data[place] ^ 1 << bit])
                yield self._refused(f"bit {place}.{bit}", self._data[:place] + changed + self._data[place + 1 :])

    def cuts(self) -> Iterator[Case]:
        """The document cut short at each byte."""
        for place in range(len(self._data)):
            yield self._refused(f"cut at {place}", self._data[:place])

    def payloads(self, step: int = 1) -> Iterator[Case]:
        """The payload cut at each byte, each byte of it left out, and each doubled, in an envelope that is in order.

        :param step: take only each so many-th byte.
        """
        for place in range(0, len(self._payload), step):
            before, byte, after = self._payload[:place], self._payload[place : place + 1], self._payload[place + 1 :]
            changes = {"cut at": before, "without": before + after, "doubled": before + byte + byte + after}
            for label, payload in changes.items():
                yield self._refused(f"payload {label} {place}", cose(payload, self._signature))

    def edits(self, chance: Random, count: int) -> Iterator[Case]:
        """*count* documents with several random changes each, in the whole or in the payload of an intact envelope."""
        for number in range(count):
            whole = chance.randrange(2) == 0
            data = bytearray(self._data if whole else self._payload)
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                match chance.randrange(4):
                    case 0:
                        data[at] = chance.randrange(256)
                    case 1:
                        del data[at : at + chance.randrange(1, 40)]
                    case 2:
                        source = chance.randrange(len(data))
                        data[at:at] = data[source : source + chance.randrange(1, 40)]
                    case _:
                        data[at : at + 1] = chance.choice(_HEADS)
            changed = bytes(data) if whole else cose(bytes(data), self._signature)
            if changed != self._data:
                yield self._refused(f"edit {number}", changed)

    def structure(self) -> Iterator[Case]:
        """Everything else that is written otherwise, with the one signature that there is."""
        yield self._accepted("as it is", self._data)
        yield self._accepted("with tag 18", b"\xd2" + self._data)
        for step in (
            self._surroundings,
            self._envelopes,
            self._lengths,
            self._headers,
            self._signatures,
            self._crossed,
        ):
            yield from step()

    def _surroundings(self) -> Iterator[Case]:
        for tag in ("d2d2", "d1", "d812", "d862", "d9d9f7", "d9d9f7d2", "c0"):
            yield self._refused(f"tag {tag}", bytes.fromhex(tag) + self._data)
        for extra in (b"\0", b"\xff", b"\xf6", self._data, b"\n"):
            yield self._refused("bytes after it", self._data + extra)
            yield self._refused("bytes before it", extra + self._data)
        yield self._refused("in a byte string", cbor2.dumps(self._data))
        yield self._refused("in an array", b"\x81" + self._data)

    def _envelopes(self) -> Iterator[Case]:
        protected, unprotected, payload, signature = self._parts
        whole = b"".join(self._parts)
        yield self._refused("an array of indefinite length", b"\x9f" + whole + b"\xff")
        yield self._refused("an array of three", b"\x83" + protected + unprotected + payload)
        yield self._refused("an array of five", b"\x85" + whole + b"\x40")
        yield self._refused("a map", b"\xa2" + whole)
        for label, parts in (
            ("indefinite unprotected header", (protected, b"\xbf\xff", payload, signature)),
            ("unprotected header null", (protected, b"\xf6", payload, signature)),
            ("protected header a map", (PROTECTED, unprotected, payload, signature)),
            ("payload null", (protected, unprotected, b"\xf6", signature)),
            ("payload empty", (protected, unprotected, b"\x40", signature)),
            ("payload a text", (protected, unprotected, b"\x79" + payload[1:], signature)),
            ("payload not wrapped", (protected, unprotected, self._payload, signature)),
        ):
            yield self._refused(label, b"\x84" + b"".join(parts))

    def _lengths(self) -> Iterator[Case]:
        """Lengths in more bytes than they need, and strings in chunks."""
        protected, unprotected, payload, signature = self._parts
        yield self._refused("array length in 1 byte", b"\x98\x04" + b"".join(self._parts))
        yield self._refused("protected length in 1 byte", b"\x84\x58\x04" + PROTECTED + b"".join(self._parts[1:]))
        for width, info in ((2, 25), (4, 26), (8, 27)):
            for place, octets in ((2, self._payload), (3, self._signature)):
                head = bytes([2 << 5 | info]) + len(octets).to_bytes(width, "big")
                written = [*self._parts]
                written[place] = head + octets
                if written != self._parts:
                    yield self._refused(f"length of part {place} in {width} bytes", b"\x84" + b"".join(written))
        chunks = b"\x5f" + cbor2.dumps(self._payload[:9]) + cbor2.dumps(self._payload[9:]) + b"\xff"
        yield self._refused("payload in chunks", b"\x84" + protected + unprotected + chunks + signature)
        chunks = b"\x5f" + signature + b"\xff"
        yield self._refused("signature in chunks", b"\x84" + protected + unprotected + payload + chunks)

    def _headers(self) -> Iterator[Case]:
        for header in _HEADERS:
            yield self._refused(f"protected {header.hex()}", cose(self._payload, self._signature, header))
        for unprotected in ({4: b"k"}, {1: -35}, {1: -7}, {33: b"x"}):
            data = cose(self._payload, self._signature, PROTECTED, unprotected)
            yield self._refused(f"unprotected {unprotected}", data)

    def _signatures(self) -> Iterator[Case]:
        r, s = self._signature[:48], self._signature[48:]
        r_number, s_number = int.from_bytes(r, "big"), int.from_bytes(s, "big")
        zero, one, n = (number.to_bytes(48, "big") for number in (0, 1, _N))
        # An ECDSA signature has a twin; a rule against it would refuse 15 of 25 documents of real NSMs.
        yield self._accepted("r, n-s", cose(self._payload, r + (_N - s_number).to_bytes(48, "big")))
        for label, value in {
            "r = 0": zero + s,
            "s = 0": r + zero,
            "0, 0": zero + zero,
            "1, 1": one + one,
            "r = n": n + s,
            "s = n": r + n,
            "n - r": (_N - r_number).to_bytes(48, "big") + s,
            "n - s + 1": r + (_N - s_number + 1).to_bytes(48, "big"),
            "all ones": b"\xff" * 96,
            "exchanged": s + r,
            "short": self._signature[:-1],
            "long": self._signature + b"\0",
            "padded": b"\0" + r + b"\0" + s,
            "DER": encode_dss_signature(r_number, s_number),
            "empty": b"",
            "of P-256's size": self._signature[:64],
            "of P-521's size": self._signature + bytes(36),
            "of another": self._other_signature,
        }.items():
            yield self._refused(f"signature {label}", cose(self._payload, value))

    def _crossed(self) -> Iterator[Case]:
        """Fields of another document, or left out, or given twice; the payload in another form."""
        mine, indefinite = self._fields, self._payload[0] == 0xBF
        others: dict[str, Any] = cbor2.loads(self._other_payload)
        yield self._refused("payload of another", cose(self._other_payload, self._signature))
        yield self._payload_case("the other kind of length", mine, indefinite=not indefinite)
        for name, value in mine.items():
            changes: dict[str, Any] = {
                f"{name} left out": {key: value for key, value in mine.items() if key != name},
                f"{name} twice": [*mine.items(), (name, value)],
                f"{name} undefined": {**mine, name: Raw(b"\xf7")},
            }
            if value is not None:
                changes[f"{name} null"] = {**mine, name: None}
            if value != others.get(name):
                changes[f"{name} of another"] = {**mine, name: others.get(name)}
            for label, pairs in changes.items():
                yield self._payload_case(label, pairs, indefinite=indefinite)

    def _payload_case(self, label: str, pairs: Any, *, indefinite: bool) -> Case:
        return self._refused(label, cose(encode(pairs, indefinite=indefinite), self._signature))

    def _refused(self, label: str, data: bytes) -> Case:
        assert data != self._data
        return Case(f"{self._real.name} {label}", data, None, self._policy, self._now)

    def _accepted(self, label: str, data: bytes) -> Case:
        return Case(f"{self._real.name} {label}", data, (), self._policy, self._now)
