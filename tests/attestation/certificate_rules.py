"""Documents signed by a PKI of our own that break one rule of the certificates or of their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from nitroproxy.attestation.refusal import Rule
from tests.attestation.cases import Case
from tests.attestation.field_rules import good_case
from tests.attestation.pki import Pki, document, fields, key, pki

_CAS: Final = ("root", "region", "zone", "instance")
_UNKNOWN: Final = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
_LENGTH_WITHOUT_CA: Final = x509.UnrecognizedExtension(x509.BasicConstraints.oid, bytes.fromhex("3003020100"))
_ECDSA_WITH_SHA384: Final = bytes.fromhex("06082a8648ce3d040303")
_ECDSA_WITH_SHA512: Final = bytes.fromhex("06082a8648ce3d040304")


class CertificateRules:
    """One rule at a time, broken in *chain* or in a chain that is made for it."""

    def __init__(self, chain: Pki) -> None:
        self._chain = chain

    def cases(self) -> Iterator[Case]:
        """All of them, and variants that are in order."""
        for step in (
            self._bundles,
            self._algorithms,
            self._good,
            self._cas,
            self._lengths,
            self._leaves,
            self._issuers,
        ):
            yield from step()
        for step in (self._keys, self._roots):
            yield from step()

    def _bundles(self) -> Iterator[Case]:
        root, region, zone, instance = self._chain.cabundle
        stranger = pki().cabundle[1]
        bundles: tuple[tuple[str, tuple[Any, ...], Rule], ...] = (
            ("reversed", (instance, zone, region, root), "root"),
            ("no root", (region, zone, instance), "root"),
            ("no region", (root, zone, instance), "chain"),
            ("no zone", (root, region, instance), "chain"),
            ("no instance", (root, region, zone), "chain"),
            ("root only", (root,), "chain"),
            ("root twice", (root, root, region, zone, instance), "chain"),
            ("region twice", (root, region, region, zone, instance), "chain"),
            ("exchanged", (root, zone, region, instance), "chain"),
            ("root at the end", (root, region, zone, instance, root), "chain"),
            ("leaf in it", (root, region, zone, instance, self._chain.leaf), "chain"),
            ("a stranger at the end", (root, region, zone, instance, stranger), "chain"),
            ("an empty one", (root, region, zone, instance, b""), "cabundle"),
            ("a large one", (root, region, zone, instance, b"x" * 1025), "cabundle"),
            ("nine", (root,) * 9, "cabundle"),
            ("none", (), "cabundle"),
            ("texts", ("x",), "cabundle"),
            ("not DER", (root, region, b"\x30\x00", instance), "certificate"),
            ("a byte after one", (root, region, zone + b"\0", instance), "certificate"),
            ("a byte after the root", (root + b"\0", region, zone, instance), "root"),
            ("PEM", (root, region, zone, b"-----BEGIN CERTIFICATE-----"), "certificate"),
        )
        for label, ders, rule in bundles:
            yield self._bundle(label, ders, self._chain.leaf, rule)
        yield self._bundle("the leaf is its issuer", self._chain.cabundle, instance, "chain")
        yield self._bundle("the leaf is the root", (root,), root, "chain")

    def _algorithms(self) -> Iterator[Case]:
        """The algorithm beside the signature is not signed; it must be the one that is."""
        *_, leaf = ders = (*self._chain.cabundle, self._chain.leaf)
        for place, der in enumerate(ders[1:], 1):
            at = der.rindex(_ECDSA_WITH_SHA384)
            changed = [*ders]
            changed[place] = der[:at] + _ECDSA_WITH_SHA512 + der[at + len(_ECDSA_WITH_SHA384) :]
            assert changed[place] != der and ders[-1] == leaf
            yield self._bundle(f"outer algorithm of {place}", changed[:-1], changed[-1], "certificate", "chain")

    def _good(self) -> Iterator[Case]:
        yield self._made("unchanged")
        yield self._made("leaf's keyUsage is critical", {"leaf": {"critical": True}})
        yield self._made(
            "leaf with one more extension", {"leaf": {"extra": [(x509.SubjectKeyIdentifier(b"x"), False)]}}
        )
        yield self._made("an unknown extension, not critical", {"zone": {"extra": [(_UNKNOWN, False)]}})
        yield self._made("root's length is 3", {"root": {"length": 3}})
        yield self._made("no lengths", {name: {"length": None} for name in ("region", "zone", "instance")})

    def _cas(self) -> Iterator[Case]:
        constraint = x509.NameConstraints([x509.DNSName("a")], None)
        purpose = x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH])
        changes: dict[str, tuple[dict[str, Any], Rule]] = {
            "ended": ({"days": (-9, -1)}, "validity"),
            "not yet valid": ({"days": (1, 2)}, "validity"),
            "not a CA": ({"ca": False, "length": None}, "constraints"),
            "no basicConstraints": ({"constraints": False}, "certificate"),
            "basicConstraints not critical": ({"constraints_critical": False}, "constraints"),
            "no keyUsage": ({"usage": None}, "certificate"),
            "no keyCertSign": ({"usage": {"digital_signature", "crl_sign"}}, "usage"),
            "keyUsage not critical": ({"critical": False}, "usage"),
            "an unknown critical extension": ({"extra": [(_UNKNOWN, True)]}, "certificate"),
            "name constraints": ({"extra": [(constraint, True)]}, "certificate"),
            "a critical purpose": ({"extra": [(purpose, True)]}, "certificate"),
            "signed with SHA-256": ({"digest": hashes.SHA256}, "certificate"),
            "signed with SHA-512": ({"digest": hashes.SHA512}, "certificate"),
        }
        for name in _CAS:
            for label, (change, rule) in changes.items():
                yield self._made(f"{name} {label}", {name: change}, rule)

    def _lengths(self) -> Iterator[Case]:
        for name, length in (("root", 2), ("root", 0), ("region", 1), ("region", 0), ("zone", 0)):
            yield self._made(f"{name}'s length is {length}", {name: {"length": length}}, "constraints")

    def _leaves(self) -> Iterator[Case]:
        changes: dict[str, tuple[dict[str, Any], Rule]] = {
            "ended": ({"days": (-1, 0)}, "validity"),
            "not yet valid": ({"days": (0.01, 1)}, "validity"),
            "is a CA": ({"ca": True}, "constraints"),
            "is a CA that may not issue": ({"ca": True, "usage": {"digital_signature"}}, "constraints"),
            "no digitalSignature": ({"usage": {"key_agreement"}}, "usage"),
            "may issue certificates": ({"usage": {"digital_signature", "key_cert_sign"}}, "usage"),
            "no keyUsage": ({"usage": None}, "certificate"),
            "no basicConstraints": ({"constraints": False}, "certificate"),
            "basicConstraints not critical": ({"constraints_critical": False}, "constraints"),
            "has a path length": ({"constraints": False, "extra": [(_LENGTH_WITHOUT_CA, True)]}, "certificate"),
            "an unknown critical extension": ({"extra": [(_UNKNOWN, True)]}, "certificate"),
            "signed with SHA-256": ({"digest": hashes.SHA256}, "certificate"),
        }
        for label, (change, rule) in changes.items():
            yield self._made(f"leaf {label}", {"leaf": change}, rule)

    def _issuers(self) -> Iterator[Case]:
        stranger = key("stranger")
        for name in (*_CAS, "leaf"):
            yield self._made(f"{name} signed by a stranger", {name: {"signer": stranger}}, "chain")
        for name, issuer in (("region", "zone"), ("zone", "root"), ("instance", "region"), ("leaf", "zone")):
            yield self._made(f"{name} of another issuer's name", {name: {"issuer": issuer}}, "chain")
        yield self._made("a name in capitals", {"zone": {"issuer": "REGION"}}, "chain")
        yield self._made("region is a root", {"region": {"signer": key("region"), "issuer": "region"}}, "chain")
        yield self._made("root is not its own issuer", {"root": {"issuer": "other"}}, "chain")

    def _keys(self) -> Iterator[Case]:
        for curve in (ec.SECP256R1, ec.SECP521R1, ec.SECP256K1):
            public = ec.generate_private_key(curve()).public_key()
            for name in ("region", "leaf"):
                yield self._made(f"{name} on {curve.name}", {name: {"public": public}}, "certificate")
        public_rsa = rsa.generate_private_key(65537, 2048).public_key()
        yield self._made("zone with RSA", {"zone": {"public": public_rsa}}, "certificate")
        public_ed = ed25519.Ed25519PrivateKey.generate().public_key()
        yield self._made("leaf with Ed25519", {"leaf": {"public": public_ed}}, "certificate")

    def _roots(self) -> Iterator[Case]:
        """Chains that look like ours; ours is the one that is trusted."""
        twin = pki(root={"public": key("twin").public_key(), "signer": key("twin")}, region={"signer": key("twin")})
        again = pki(root={"days": (-900, 901)})
        ours_first = {**fields(twin), "cabundle": [self._chain.cabundle[0], *twin.cabundle[1:]]}
        yield self._data("a root of the same name with another key", document(twin), "root")
        yield self._data("our root before their chain", document(twin, ours_first), "chain")
        yield self._data("the same root key in another certificate", document(again), "root")

    def _bundle(self, label: str, ders: Any, leaf: bytes, *rules: Rule) -> Case:
        pairs = {**fields(self._chain), "cabundle": list(ders), "certificate": leaf}
        return self._data(f"cabundle: {label}", document(self._chain, pairs), *rules)

    def _data(self, label: str, data: bytes, *rules: Rule) -> Case:
        return replace(good_case(self._chain), label=label, data=data, rules=rules)

    def _made(self, label: str, changes: Mapping[str, Mapping[str, Any]] | None = None, *rules: Rule) -> Case:
        return replace(good_case(pki(**(changes or {}))), label=f"certificates: {label}", rules=rules)
