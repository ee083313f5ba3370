"""Whether a certificate is for a host (RFC 9525), by service-identity: its subjectAltName only, never its CN."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from nitroproxy.tls.reasons import Refused, shown

#: Hosts remembered as being names or addresses.
_HOSTS: Final = 1024
#: Names of a certificate that a message lists.
_LISTED: Final = 5


def check_name(certificate: x509.Certificate, host: str) -> None:
    """The certificate must be for *host*, a DNS name in A-labels or an IP address. Called before the chain's verdict is
    asked for, and before a client certificate is sent.

    :raises Refused: unless it is, naming the names that it is for.
    :raises Exception: any other, for a certificate that cannot be read: that refuses it, too.
    """
    wanted = IPAddress_ID(host) if is_address(host) else DNS_ID(host)
    try:
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except VerificationError as error:
        raise Refused(f"it is not for {host}, but for {_listed(certificate)}") from error
    except CertificateError as error:
        raise Refused(f"its names cannot be used: {shown(error)}") from error


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The subjectAltName; empty without one."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _listed(certificate: x509.Certificate) -> str:
    names = alternative_names(certificate)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown(name.value) for name in names[:_LISTED]) + more


@lru_cache(maxsize=_HOSTS)
def is_address(host: str) -> bool:
    """Whether *host* is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
