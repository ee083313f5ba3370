"""Why a handshake failed, in words that a person can act on: what was wrong, whose name and which date, and the cure.

What a certificate says of itself comes from outside: it is shown without control characters, and cut.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from nitroproxy.errors import Kind, ProxyError

#: Characters of one name from a certificate in a message.
_SHOWN: Final = 80
#: Characters of what a message says about one certificate: under 512 bytes, with the rest of the message.
_WHY: Final = 360


class Refused(Exception):
    """A certificate is refused; the text follows "the certificate of … is refused:"."""


def refusal(host: str, why: str) -> ProxyError:
    """The error that the client receives."""
    return ProxyError(Kind.TLS_CERTIFICATE_ERROR, f"the certificate of {host} is refused: {_cut(why, _WHY)}")


def shown(value: object) -> str:
    """What a certificate or a library says, for a message: printable and short."""
    return _cut("".join(char if char.isprintable() else "?" for char in str(value)), _SHOWN)


def subject_of(certificate: x509.Certificate) -> str:
    """The name of the certificate's holder."""
    return _named(certificate.subject)


def _named(name: x509.Name) -> str:
    return f'"{shown(name.rfc4514_string())}"' if len(list(name)) else "no name"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


#: X509_V_ERR_* of OpenSSL (x509_vfy.h) in words that follow the certificate's name; others are given by number.
_CHAIN_ERRORS: Final = {
    7: "has a wrong signature: it was changed, or another authority of the same name issued it",
    23: "has been revoked",
    24: "was used to issue a certificate but is not an authority's",
    25: "has more authorities below it than it allows (path length)",
    26: "is not for servers (extended key usage)",
    32: "was used to issue a certificate, which its key usage forbids",
    34: "has a critical extension that is not understood",
    47: "has a name that its authority must not vouch for (permitted name constraint)",
    48: "has a name that its authority must not vouch for (excluded name constraint)",
    66: "has a key that is too weak",
    67: "is an authority's whose key is too weak",
    68: "is signed with a digest that is too weak",
}
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21})
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
_PRIVATE: Final = "if that is an authority of your own, add its certificate with tls.extra_ca_file"


def chain_reason(certificate: x509.Certificate, number: int, depth: int, now: datetime) -> str:
    """What OpenSSL's verification error *number* means for *certificate*.

    :param depth: 0 for the destination's own certificate, more for those of authorities.
    :param now: the time by which it was verified.
    """
    which = "it" if depth == 0 else f"the authority's certificate {subject_of(certificate)}"
    if number == _EXPIRED:
        return f"{which} expired on {_date(certificate.not_valid_after_utc)}; the clock here says {_date(now)}"
    if number == _NOT_YET_VALID:
        since = _date(certificate.not_valid_before_utc)
        return f"{which} is not valid before {since}; the clock here says {_date(now)}"
    if number in _UNKNOWN_ISSUER:
        issuer = _named(certificate.issuer)
        return (
            f"{which} was issued by {issuer}, which is not trusted and was not sent along: {_PRIVATE}; if it is a "
            "public one, the destination must send its intermediate certificates"
        )
    if number == _SELF_SIGNED:
        return f"{which} is self-signed and not trusted itself: {_PRIVATE}"
    if number == _SELF_SIGNED_IN_CHAIN:
        return f"it leads to the self-signed {subject_of(certificate)}, which is not trusted: {_PRIVATE}"
    return f"{which} {_CHAIN_ERRORS.get(number, f'was refused with OpenSSL verification error {number}')}"


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_NEWER_ONLY: Final = (
    'it may speak TLS 1.2 only, and tls.min_version is "TLSv1.3": set tls.min_version to "TLSv1.2" if you accept that'
)
_OLD: Final = "it has neither TLS 1.2 nor 1.3, and older versions are not spoken"
#: What to tell of an alert or an error, by a part of OpenSSL's text for it. The first that fits counts.
_CAUSES: Final = (
    (
        "no application protocol",
        "it does not speak HTTP/1.1 (ALPN), probably HTTP/2 only: reach it by CONNECT with a client that does",
    ),
    ("certificate required", "it requires a client certificate: tls.client_certificates, or CONNECT with the client's"),
    ("unrecognized name", "no site of this name is served there"),
)
_VERSION_ERRORS: Final = ("protocol version", "unsupported protocol", "wrong ssl version")
#: Alerts by which a destination answers what it was sent as a client certificate, or that none was.
_CLIENT_CERTIFICATE_ALERTS: Final = (
    "bad certificate",
    "unsupported certificate",
    "certificate revoked",
    "certificate expired",
    "certificate unknown",
    "unknown ca",
    "access denied",
    "decrypt error",
)


def handshake_failure(host: str, texts: list[str], *, min_version: str, identity: str | None) -> ProxyError:
    """The error for a handshake that OpenSSL gave up.

    :param texts: OpenSSL's reasons.
    :param identity: the pattern of the client certificate that was offered, or None.
    """
    text = ", ".join(texts) or "no reason given"
    if "certificate verify failed" in text:
        return refusal(host, text)
    cause = _cause(text, min_version, identity)
    explained = f"{text}: {cause}" if cause else text
    if " alert " in f" {text} ":
        return ProxyError(Kind.TLS_ALERT_RECEIVED, f"{host} ended the TLS handshake: {explained}")
    return ProxyError(Kind.TLS_PROTOCOL_ERROR, f"the TLS handshake with {host} failed: {explained}")


def _cause(text: str, min_version: str, identity: str | None) -> str:
    newer_only = min_version == "TLSv1.3"
    if any(part in text for part in _VERSION_ERRORS):
        return _NEWER_ONLY if newer_only else _OLD
    for part, cause in _CAUSES:
        if part in text:
            return cause
    if any(part in text for part in _CLIENT_CERTIFICATE_ALERTS):
        if identity is not None:
            return f"it does not take the client certificate that tls.client_certificates has for {identity}"
        return "it may want a client certificate: tls.client_certificates"
    if "handshake failure" in text:
        wanted = "it has no version, cipher or key exchange in common, or wants a client certificate"
        return f"{wanted}; {_NEWER_ONLY}" if newer_only else wanted
    if "wrong version number" in text or "packet length too long" in text:
        return "what listens there does not speak TLS"
    return ""
