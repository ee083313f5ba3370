"""The profile ``webpki``: what a certificate of the public web must conform to, beyond OpenSSL's usual verification.

Three parties must accept a chain that OpenSSL has already accepted in the handshake: OpenSSL with X509_STRICT (RFC
5280 to the letter), the verifier of the cryptography package (an independent implementation, by the CA/Browser Forum's
Baseline Requirements), and the few rules of those that neither checks. `verification` calls it once for a chain and a
host, and remembers the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from OpenSSL import crypto

from nitroproxy.tls.anchors import Anchor
from nitroproxy.tls.names import is_address
from nitroproxy.tls.reasons import Refused, shown, subject_of

_STRICT: Final = crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.PARTIAL_CHAIN
#: The least size of an RSA key in bits (Baseline Requirements 6.1.5).
_RSA_BITS: Final = 2048
#: What the cryptography package adds to its reasons and a reader has no use for.
_NOISE: Final = re.compile(r"validation failed: |candidates exhausted: | \(encountered processing <.*", re.DOTALL)


_T = TypeVar("_T", bound=x509.ExtensionType)


class WebPKI:
    """The profile, for chains to *anchors*."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self._store = Store([anchor.certificate for anchor in anchors])

    def check(
        self,
        sent: Sequence[x509.Certificate],
        verified: Sequence[x509.Certificate],
        anchor: Anchor,
        host: str,
        now: datetime,
    ) -> None:
        """Accept, or say what is wrong.

        :param sent: the chain as the destination sent it, its own certificate first.
        :param verified: the chain that OpenSSL accepted, from there to *anchor*.
        :raises Refused: with the reason.
        :raises Exception: any other, for a certificate that cannot be read: that refuses it, too.
        """
        _check_certificates(verified)
        _check_strictly(verified, anchor, now)
        self._ask_second(sent, host, now)

    def _ask_second(self, sent: Sequence[x509.Certificate], host: str, now: datetime) -> None:
        subject = x509.IPAddress(ip_address(host)) if is_address(host) else x509.DNSName(_conforming(host))
        verifier = PolicyBuilder().store(self._store).time(now).build_server_verifier(subject)
        try:
            verifier.verify(sent[0], list(sent[1:]))
        except VerificationError as error:
            raise Refused(f"{shown(_NOISE.sub('', str(error)))} (by the second verifier)") from error


def _conforming(host: str) -> str:
    """*host* as a name that the second verifier can ask for: it takes no underscore, which some hosts below a wildcard
    have. The wildcard covers any one label, and `names` has compared the real one."""
    first, dot, rest = host.partition(".")
    return f"{first.replace('_', '-').strip('-') or 'x'}{dot}{rest}" if "_" in first else host


def _check_strictly(verified: Sequence[x509.Certificate], anchor: Anchor, now: datetime) -> None:
    """OpenSSL once more, with X509_STRICT, over exactly *verified*."""
    trusted = verified[-1]
    if anchor.built_in and _extension(trusted, x509.SubjectKeyIdentifier) is None:
        # One root of the public web is older than that rule (TWCA Global Root CA). RFC 5280 section 6.1 reads nothing
        # of an anchor but its name and key, and the handshake has verified its signature below.
        trusted = verified[-2]
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(trusted))
    store.set_flags(_STRICT)
    store.set_time(now)
    chain = [crypto.X509.from_cryptography(certificate) for certificate in verified]
    try:
        crypto.X509StoreContext(store, chain[0], chain[1:-1]).verify_certificate()
    except crypto.X509StoreContextError as error:
        at = error.errors[1]
        whose = "" if at == 0 else f", of {subject_of(error.certificate.to_cryptography())}"
        raise Refused(f"{shown(error)}{whose} (OpenSSL, X509_STRICT)") from error


def _check_certificates(verified: Sequence[x509.Certificate]) -> None:
    """The rules that neither verifier checks. Sections are those of the Baseline Requirements, or RFC 5280's."""
    leaf, *authorities = verified
    for certificate in verified:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and (key.key_size < _RSA_BITS or key.key_size % 8):
            size = f"{key.key_size} bits, not {_RSA_BITS} or more in whole bytes"
            raise Refused(f"the RSA key of {subject_of(certificate)} has {size} (6.1.5)")
    for certificate in verified[: len(verified) - 1] or verified:
        if certificate.serial_number <= 0:
            raise Refused(f"the serial number of {subject_of(certificate)} is not positive (RFC 5280 4.1.2.2)")
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage.value:
        raise Refused("it may be used for anything (anyExtendedKeyUsage, 7.1.2.7.10)")
    for certificate in authorities:
        constraints = _extension(certificate, x509.PolicyConstraints)
        if constraints is not None and not constraints.critical:
            raise Refused(f"the policy constraints of {subject_of(certificate)} are not critical (RFC 5280 4.2.1.11)")
    if authorities and authorities[-1].subject == authorities[-1].issuer:
        _check_root(authorities[-1])


def _check_root(root: x509.Certificate) -> None:
    if _extension(root, x509.ExtendedKeyUsage) is not None:
        raise Refused(f"the root {subject_of(root)} has an extended key usage (7.1.2.1.2)")
    authority = _extension(root, x509.AuthorityKeyIdentifier)
    if authority is None:
        return
    own = _extension(root, x509.SubjectKeyIdentifier)
    if authority.value.authority_cert_issuer is not None or authority.value.authority_cert_serial_number is not None:
        raise Refused(f"the root {subject_of(root)} names an issuer of its own in its key identifier (7.1.2.1.3)")
    if own is not None and authority.value.key_identifier != own.value.digest:
        raise Refused(f"the root {subject_of(root)} has two key identifiers that differ (7.1.2.1.3)")


def _extension(certificate: x509.Certificate, kind: type[_T]) -> x509.Extension[_T] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
