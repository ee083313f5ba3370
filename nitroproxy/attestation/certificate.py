"""One X.509 certificate of a document (RFC 5280) and the rules that it has to keep by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nitroproxy.attestation.refusal import Refused

#: RFC 5758 section 3.2.
_ECDSA_WITH_SHA384: Final = "1.2.840.10045.4.3.3"
#: RFC 5280 section 4.2: a critical extension that is not processed refuses the certificate.
_PROCESSED: Final = frozenset({x509.BasicConstraints.oid, x509.KeyUsage.oid})


@dataclass(frozen=True)
class Certificate:
    """A certificate, parsed completely: no field is left that could fail to parse later.

    :ivar place: where in the document it stands, for messages: ``cabundle[0]`` or ``certificate``.
    """

    place: str
    parsed: x509.Certificate
    key: ec.EllipticCurvePublicKey
    self_issued: bool
    not_before: datetime
    not_after: datetime
    constraints: x509.Extension[x509.BasicConstraints]
    usage: x509.Extension[x509.KeyUsage]

    def check_time(self, at: datetime) -> None:
        """Check that it is valid *at* that time, both ends included (RFC 5280 section 4.1.2.5).

        :raises Refused: rule ``validity``.
        """
        if not self.not_before <= at <= self.not_after:
            raise Refused(
                "validity",
                f"{self.place} is valid from {self.not_before:%F %T} to {self.not_after:%F %T} UTC, not at {at:%F %T}",
            )

    def check_leaf(self) -> None:
        """Check that it may sign documents, and no certificates.

        :raises Refused: rule ``constraints`` or ``usage``.
        """
        if self.constraints.value.ca:
            raise Refused("constraints", f"{self.place} signs the document but is a CA")
        if not self.usage.value.digital_signature or self.usage.value.key_cert_sign:
            raise Refused("usage", f"{self.place} is not for digitalSignature, or also for keyCertSign")

    def check_ca(self, below: int) -> None:
        """Check that it may issue certificates, with *below* more CAs between it and the leaf.

        :raises Refused: rule ``constraints`` or ``usage``.
        """
        if not self.constraints.value.ca:
            raise Refused("constraints", f"{self.place} is not a CA")
        limit = self.constraints.value.path_length
        if limit is not None and below > limit:
            raise Refused("constraints", f"{self.place} allows {limit} CAs below it, there are {below}")
        if not self.usage.critical or not self.usage.value.key_cert_sign:
            raise Refused("usage", f"{self.place} is not for keyCertSign, or not critically so")


def read_certificate(der: bytes, place: str) -> Certificate:
    """Parse *der*, and check the rules that apply to every certificate of a document.

    :raises Refused: rule ``certificate`` or ``constraints``.
    """
    try:
        parsed = x509.load_der_x509_certificate(der)
        key = parsed.public_key()
        critical = {extension.oid for extension in parsed.extensions if extension.critical}
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = parsed.extensions.get_extension_for_class(x509.KeyUsage)
        # Names and times are parsed when they are asked for, and only then found to be malformed.
        self_issued = parsed.issuer == parsed.subject
        not_before, not_after = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        algorithm = parsed.signature_algorithm_oid.dotted_string
        serial = parsed.serial_number
    except Exception as error:
        # The parser's exceptions are not a closed set.
        raise Refused("certificate", f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Refused("certificate", f"{place}: the key is not one on P-384")
    _require(algorithm == _ECDSA_WITH_SHA384, place, f"signature algorithm {algorithm}, not ecdsa-with-SHA384")
    _require(critical <= _PROCESSED, place, "a critical extension besides basicConstraints and keyUsage")
    _require(parsed.version is x509.Version.v3, place, "not of version 3")
    _require(serial > 0, place, "the serial number is not positive (RFC 5280 section 4.1.2.2)")
    if not constraints.critical:
        raise Refused("constraints", f"{place}: basicConstraints is not critical")
    return Certificate(place, parsed, key, self_issued, not_before, not_after, constraints, usage)


def _require(holds: bool, place: str, otherwise: str) -> None:
    if not holds:
        raise Refused("certificate", f"{place}: {otherwise}")
