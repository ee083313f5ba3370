"""Documents signed by a PKI of our own that break one rule of envelope, payload, fields, signature or time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from nitroproxy.attestation import AWS_ROOTS, Entry, Policy
from nitroproxy.attestation.refusal import Rule
from tests.attestation.cases import Case
from tests.attestation.pki import T0, Pki, Raw, cose, document, encode, fields, key, milliseconds, sign

OPTIONAL: Final = ("public_key", "user_data", "nonce")

_ROOT: Final[tuple[Rule, ...]] = ("root",)
_VALIDITY: Final[tuple[Rule, ...]] = ("validity",)


class FieldRules:
    """One rule at a time, broken in documents of *chain*.

    :ivar base: the payload of a document that is in order.
    :ivar good: a case that is accepted.
    """

    def __init__(self, chain: Pki) -> None:
        self._chain = chain
        self.base = fields(chain)
        self.good = good_case(chain)

    def cases(self) -> Iterator[Case]:
        """All of them, and variants that are in order."""
        for step in (self._good, self._presence, self._types, self._values, self._pcrs, self._sizes, self._payloads):
            yield from step()
        for step in (self._signers, self._signed, self._times):
            yield from step()

    def _good(self) -> Iterator[Case]:
        base, pcrs = self.base, self.base["pcrs"]
        yield self._data("indefinite map", document(self._chain))
        yield self._data("definite map", document(self._chain, indefinite=False))
        yield self._with("fields in another order", dict(reversed(base.items())))
        for name in OPTIONAL:
            yield self._with(f"without {name}", _without(base, name))
            yield self._with(f"{name} null", {**base, name: None})
        for name, value in (("nonce", b"n" * 512), ("nonce", b""), ("user_data", b""), ("public_key", b"p" * 1024)):
            yield self._with(f"{name} of {len(value)}", {**base, name: value})
        yield self._with("32 PCRs", {**base, "pcrs": pcrs | {i: b"\1" * 48 for i in range(16, 32)}})
        signer = Policy((Entry("signer", {8: b"\7" * 48}, public=True),))
        one = self._with("one PCR", {**base, "pcrs": {8: b"\7" * 48}})
        yield replace(one, policy=signer)
        yield replace(self.good, label="another root is asked for", rules=_ROOT, roots=AWS_ROOTS)

    def _presence(self) -> Iterator[Case]:
        base = self.base
        pairs = list(base.items())
        for name, value in pairs:
            if name not in OPTIONAL:
                yield self._with(f"{name} left out", _without(base, name), "fields")
                yield self._with(f"{name} null", {**base, name: None}, "fields")
            yield self._with(f"{name} undefined", {**base, name: Raw(b"\xf7")}, _rule(name))
            yield self._with(f"{name} twice", [*pairs, (name, value)], "cbor")
            yield self._with(f"{name} twice, differing", [*pairs, (name, b"z")], "cbor")
            text = name.encode("ascii")
            yield self._with(f"{name} twice, long key", [*pairs, (Raw(b"\x78" + bytes([len(text)]) + text), 1)], "cbor")
            chunks = Raw(b"\x7f" + cbor2.dumps(name) + b"\xff")
            yield self._with(f"{name} twice, key in chunks", [*pairs, (chunks, 1)], "cbor")
            yield self._with(f"{name} in capitals", {**_without(base, name), name.upper(): value}, "fields")
        yield self._with("an unknown field", {**base, "extra": 1}, "fields")
        yield self._with("an unknown field, null", {**base, "extra": None}, "fields")
        yield self._with("a key of bytes", [*pairs, (b"nonce", b"x")], "payload")
        yield self._with("a number as key", [*pairs, (1, b"x")], "payload")

    def _types(self) -> Iterator[Case]:
        for name, value in self.base.items():
            for tag in (2, 18, 24, 35, 258, 55799):
                tagged = Raw(b"\xd9" + tag.to_bytes(2, "big") + cbor2.dumps(value))
                yield self._with(f"{name} with tag {tag}", {**self.base, name: tagged}, "cbor")
            for odd in (True, 1.5, "text", -1, [], {}, [b"x"], {b"k": 1}, 0):
                if (name, odd) != ("module_id", "text"):
                    # A list of one short byte string is a cabundle, though not one that begins with a trusted root.
                    rules: tuple[Rule, ...] = ("root",) if name == "cabundle" and odd == [b"x"] else (_rule(name),)
                    yield self._with(f"{name} {odd!r}", {**self.base, name: odd}, *rules)

    def _values(self) -> Iterator[Case]:
        base = self.base
        for text in ("", b"id"):
            yield self._with("module_id", {**base, "module_id": text}, "module_id")
        yield self._with("module_id not UTF-8", {**base, "module_id": Raw(b"\x61\xff")}, "cbor")
        for digest in ("SHA256", "SHA512", "sha384", "SHA384 ", "", b"SHA384"):
            yield self._with(f"digest {digest!r}", {**base, "digest": digest}, "digest")
        for number in (0, -1, 1.0, "1", 2**63, 2**64 - 1, 253_402_300_800_000, True):
            yield self._with(f"timestamp {number!r}", {**base, "timestamp": number}, "timestamp")
        for big in (2**64, Raw(b"\xc2\x48" + milliseconds(T0).to_bytes(8, "big"))):
            yield self._with("timestamp a bignum", {**base, "timestamp": big}, "cbor")

    def _pcrs(self) -> Iterator[Case]:
        pcrs = self.base["pcrs"]
        a, b = cbor2.dumps(b"a" * 48), cbor2.dumps(b"b" * 48)
        for odd in (32, -1, "0", b"0", 0.5, 2**32, 2**64 - 1, None):
            yield self._with(f"PCR {odd!r}", {**self.base, "pcrs": {**pcrs, odd: bytes(48)}}, "pcrs")
        for value in (bytes(47), bytes(49), b"", bytes(20), "0" * 48, None, [1], 0):
            yield self._with(f"PCR0 {value!r}", {**self.base, "pcrs": {**pcrs, 0: value}}, "pcrs")
        for many in ({}, {i: bytes([1]) * 48 for i in range(33)}, [b"x" * 48]):
            yield self._with(f"pcrs of {len(many)}", {**self.base, "pcrs": many}, "pcrs")
        for label, odd_map in (("False", b"\xa1\xf4" + a), ("0.0", b"\xa1\xf9\x00\x00" + a)):
            yield self._with(f"PCR {label}", {**self.base, "pcrs": Raw(odd_map)}, "pcrs")
        for label, first in (("0", b"\x00"), ("long 0", b"\x18\x00"), ("False", b"\xf4"), ("0.0", b"\xf9\x00\x00")):
            yield self._with(f"PCR 0 and {label}", {**self.base, "pcrs": Raw(b"\xa2\x00" + a + first + b)}, "cbor")
        zeros = {**pcrs, 0: bytes(48), 1: bytes(48), 2: bytes(48)}
        yield self._with("zeros in PCR0, 1, 2", {**self.base, "pcrs": zeros}, "debug")
        for index in (0, 1, 2, 3):
            yield self._with(f"zeros in PCR{index}", {**self.base, "pcrs": {**pcrs, index: bytes(48)}}, "policy")
            yield self._with(f"PCR{index} absent", {**self.base, "pcrs": _without(pcrs, index)}, "policy")

    def _sizes(self) -> Iterator[Case]:
        sizes: dict[Rule, tuple[int, ...]] = {
            "public_key": (0, 1025, 4096),
            "user_data": (513, 1024, 4096),
            "nonce": (513, 1024),
            "certificate": (0, 1025, 2000),
        }
        for name, wrong in sizes.items():
            for size in wrong:
                yield self._with(f"{name} of {size}", {**self.base, name: b"x" * size}, name)
        yield self._with("a large document", {**self.base, "module_id": "i" * 16384}, "size")
        yield self._data("nothing", b"", "size")
        yield self._data("deep", b"\x81" * 10000 + b"\0", "cbor")
        yield self._data("claims 2^63 bytes", bytes.fromhex("8444a1013822a05b7fffffffffffffff"), "cbor")
        yield self._data("claims 2^63 items", bytes.fromhex("9b7fffffffffffffff"), "cbor")

    def _payloads(self) -> Iterator[Case]:
        for tail in (b"\0", b"\xff", b"\xf6", b"\xa0"):
            for indefinite in (True, False):
                data = document(self._chain, indefinite=indefinite, tail=tail)
                yield self._data(f"{tail.hex()} after the map", data, "payload")
        payload = encode(self.base)
        yield self._payload("no break", payload[:-1], "cbor")
        yield self._payload("one field more than counted", b"\xa8" + payload[1:-1], "payload", "fields")
        yield self._payload("one field less than counted", b"\xaa" + payload[1:-1], "cbor")
        yield self._payload("an array", cbor2.dumps([1]), "payload")
        yield self._payload("a number", cbor2.dumps(1), "payload")
        yield self._payload("an empty map", cbor2.dumps({}), "fields")

    def _signers(self) -> Iterator[Case]:
        payload = encode(self.base)
        for name in ("stranger", "instance", "root"):
            yield self._data(f"signed by {name}", cose(payload, sign(payload, key(name))), "signature")
        p256 = ec.generate_private_key(ec.SECP256R1())
        yield self._data("signed with P-256", cose(payload, sign(payload, p256)), "envelope")

    def _signed(self) -> Iterator[Case]:
        payload, private = encode(self.base), self._chain.leaf_key
        es256 = cbor2.dumps({1: -7})
        for label, how in {
            "SHA-256": {"digest": hashes.SHA256},
            "SHA-512": {"digest": hashes.SHA512},
            "external data": {"external": b"x"},
            "another context": {"context": "Signature"},
            "MAC0": {"context": "MAC0"},
            "an empty header": {"protected": b""},
            "the header of ES256": {"protected": es256},
        }.items():
            signature = sign(payload, private, **how)  # type: ignore[arg-type]  # The values differ in type.
            yield self._data(f"signed over {label}", cose(payload, signature), "signature")
        yield self._data("ES256 throughout", cose(payload, sign(payload, private, protected=es256), es256), "envelope")

    def _times(self) -> Iterator[Case]:
        hour, second = timedelta(hours=1), timedelta(seconds=1)
        end = T0 + 3 * hour
        yield self._at("at the leaf's first moment", T0)
        yield self._at("before the leaf", T0 - second, "validity")
        yield self._at("at the leaf's last moment", end)
        yield self._at("a millisecond after it", end + timedelta(milliseconds=1), "validity")
        # The age would allow it, the certificate does not.
        late = Policy(self.good.policy.entries, max_age=3 * hour)
        last = replace(self._at("as the leaf ends", T0 + 2 * hour), policy=late)
        yield replace(last, now=end + timedelta(seconds=60))
        yield replace(last, label="61 s after the leaf's end", rules=_VALIDITY, now=end + timedelta(seconds=61))
        archived = replace(self.good, policy=replace(self.good.policy, max_age=None))
        yield replace(archived, label="archived", now=T0 + timedelta(days=400))

    def _at(self, label: str, signed: datetime, *rules: Rule) -> Case:
        """A document that was signed at that time, verified at once."""
        return replace(self._with(label, {**self.base, "timestamp": milliseconds(signed)}, *rules), now=signed)

    def _with(self, label: str, pairs: Any, *rules: Rule) -> Case:
        return self._data(label, document(self._chain, pairs), *rules)

    def _payload(self, label: str, payload: bytes, *rules: Rule) -> Case:
        return self._data(label, cose(payload, sign(payload, self._chain.leaf_key)), *rules)

    def _data(self, label: str, data: bytes, *rules: Rule) -> Case:
        return replace(self.good, label=label, data=data, rules=rules)


def good_case(chain: Pki) -> Case:
    """A document of *chain* that is accepted."""
    pcrs = fields(chain)["pcrs"]
    policy = Policy((Entry("ours", {index: pcrs[index] for index in range(4)}),), timedelta(minutes=5))
    return Case("good", document(chain), (), policy, T0 + timedelta(minutes=2), roots=chain.roots)


def _without(pairs: dict[Any, Any], name: object) -> dict[Any, Any]:
    return {key: value for key, value in pairs.items() if key != name}


def _rule(name: str) -> Rule:
    """The rule that a field of the wrong type breaks; each has the field's name."""
    return name  # type: ignore[return-value]
