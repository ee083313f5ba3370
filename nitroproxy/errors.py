"""Every failure that a hop of nitroproxy can report to a client.

A failure is a `Kind` (what went wrong, as a closed set: the problem type of RFC 9457, its HTTP status,
its RFC 9209 Proxy-Status error token) and a `detail` (this occurrence, for a person). `ProxyError` carries both
from wherever it happened to the response writer. This module knows nothing of Twisted, sockets or HTTP syntax.
"""

from __future__ import annotations

import enum
from typing import Final

#: Bytes of a failure's detail in UTF-8, at most, whatever has gone into it. Every buffer, log line and problem document
#: that holds a detail relies on this.
DETAIL_BYTES: Final = 512

#: The hops that can find a failure. A name outside this set, in another hop's answer, is not a hop of ours.
HOPS: Final = frozenset(
    {"nitroproxy-host", "nitroproxy-enclave", "nitroproxy-relay"}
    | {"nitroproxy-ingress", "nitroproxy-logs", "nitroproxy-health", "nitroproxy-credentials"}
)


def reason_of(error: BaseException) -> str:
    """What *error* says, once. The texts of Twisted's errors say it twice: "Connection was refused by other side: 111:
    Connection refused."."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = error.args[0] if error.args else None
    if isinstance(first, str) and first:
        return first
    return str(error).rstrip(".") or type(error).__name__


def cut(text: str, most: int) -> str:
    """*text*, or its beginning and an ellipsis, in at most *most* bytes of UTF-8; always encodable.

    Lone surrogates, which file names bring and UTF-8 does not have, become escapes.

    :param most: bytes, at least 3.
    """
    if len(text) <= most and text.isascii():
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > most:
        data = data[: most - 3]
        return data.decode("utf-8", "ignore") + "…"
    return data.decode("utf-8")


class Kind(enum.Enum):
    """One kind of failure. The member's name in lower case is its public name (`Kind.DNS_ERROR` is ``dns_error``).

    Each value is ``(HTTP status, RFC 9209 section 2.3 error token, title)``; the title is the same for every
    occurrence (RFC 9457 section 3.1.3).
    """

    # The client's request.
    MALFORMED_REQUEST = (400, "http_request_error", "The request is not valid HTTP/1.1")
    INVALID_TARGET = (400, "http_request_error", "The request target is not a URL this proxy can use")
    NOT_FOUND = (404, "http_request_error", "Nothing is served at this path")
    METHOD_NOT_ALLOWED = (405, "http_request_denied", "The method is not allowed")
    REQUEST_TIMEOUT = (408, "http_request_error", "The request did not arrive in time")
    CONTENT_TOO_LARGE = (413, "http_request_error", "The request's body is too large")
    TARGET_TOO_LONG = (414, "http_request_error", "The request target is too long")
    EXPECTATION_FAILED = (417, "http_request_error", "The expectation cannot be met")
    HEADERS_TOO_LARGE = (431, "http_request_error", "The header section is too large")
    UNSUPPORTED_CODING = (501, "http_request_error", "The transfer coding is not supported")

    # What policy forbids.
    PLAINTEXT_DESTINATION = (403, "http_request_denied", "Plaintext destinations are not allowed")
    DESTINATION_DENIED = (403, "http_request_denied", "The policy denies this destination")
    DESTINATION_NOT_ALLOWED = (403, "http_request_denied", "No rule of the policy allows this destination")
    ADDRESS_DENIED = (403, "destination_ip_prohibited", "The destination's address is not allowed")
    UNKNOWN_NAME = (403, "destination_ip_prohibited", "The address stands for a name that is not known")
    CROSS_SITE_REQUEST = (403, "http_request_denied", "A browser sent this request for another site")
    PEER_DENIED = (403, "http_request_denied", "This peer may not use this listener")
    PAGE_DENIED = (403, "http_request_denied", "This page does not answer such a request")

    # The way to the destination.
    DNS_ERROR = (502, "dns_error", "The destination's name could not be resolved")
    DNS_TIMEOUT = (504, "dns_timeout", "Resolving the destination's name took too long")
    CONNECTION_REFUSED = (502, "connection_refused", "The destination refused the connection")
    CONNECTION_TIMEOUT = (504, "connection_timeout", "Connecting to the destination took too long")
    CONNECTION_TERMINATED = (502, "connection_terminated", "The connection to the destination was lost")
    UNREACHABLE = (502, "destination_ip_unroutable", "The destination cannot be reached")
    PROXY_LOOP_DETECTED = (502, "proxy_loop_detected", "The request came back to this proxy")

    # TLS with the destination.
    TLS_CERTIFICATE_ERROR = (502, "tls_certificate_error", "The destination's certificate was refused")
    TLS_PROTOCOL_ERROR = (502, "tls_protocol_error", "The TLS handshake failed")
    TLS_ALERT_RECEIVED = (502, "tls_alert_received", "The destination ended the TLS handshake with an alert")

    # The destination's response.
    HTTP_PROTOCOL_ERROR = (502, "http_protocol_error", "The destination's response is not valid HTTP/1.1")
    HTTP_RESPONSE_HEADERS_TOO_LARGE = (
        502,
        "http_response_header_section_size",
        "The response's header section is too large",
    )
    HTTP_RESPONSE_INCOMPLETE = (502, "http_response_incomplete", "The response ended before it was complete")
    HTTP_RESPONSE_TIMEOUT = (504, "http_response_timeout", "The destination did not answer in time")
    HTTP_UPGRADE_FAILED = (502, "http_upgrade_failed", "The destination answered an upgrade it was not asked for")

    # The hops themselves.
    ENCLAVE_UNAVAILABLE = (503, "destination_unavailable", "The enclave cannot be reached")
    RELAY_UNAVAILABLE = (503, "destination_unavailable", "The egress relay on the host cannot be reached")
    UPSTREAM_PROXY_UNAVAILABLE = (503, "destination_unavailable", "The host's upstream proxy cannot be reached")
    UPSTREAM_PROXY_REFUSED = (502, "destination_unavailable", "The host's upstream proxy opened no tunnel")
    CONNECTION_LIMIT_REACHED = (503, "connection_limit_reached", "The proxy is at its connection limit")
    DRAINING = (503, "destination_unavailable", "The proxy is shutting down")
    ATTESTATION_UNAVAILABLE = (503, "proxy_internal_error", "The enclave cannot attest at present")
    CREDENTIALS_UNAVAILABLE = (503, "destination_unavailable", "There are no credentials of the instance's role")
    INTERNAL_ERROR = (500, "proxy_internal_error", "The proxy failed")

    def __init__(self, status: int, proxy_status: str, title: str) -> None:
        self.status = status
        self.proxy_status = proxy_status
        self.title = title

    @property
    def public_name(self) -> str:
        """The name that problem documents, logs and metrics use, for example ``dns_error``."""
        return self.name.lower()

    @classmethod
    def from_public_name(cls, name: str) -> Kind | None:
        """The kind whose `public_name` is *name*, or None when there is no such kind."""
        return cls.__members__.get(name.upper()) if name.islower() else None


#: Temporary failures: seconds after which a client may try again (Retry-After, RFC 9110 section 10.2.3).
RETRY_AFTER_SECONDS = {
    Kind.ENCLAVE_UNAVAILABLE: 1,
    Kind.RELAY_UNAVAILABLE: 1,
    Kind.UPSTREAM_PROXY_UNAVAILABLE: 1,
    Kind.CONNECTION_LIMIT_REACHED: 1,
    Kind.DRAINING: 1,
    Kind.ATTESTATION_UNAVAILABLE: 1,
    Kind.CREDENTIALS_UNAVAILABLE: 1,
}


class ProxyError(Exception):
    """A request cannot be served; the answer to the client carries *kind* and *detail*.

    :param kind: what went wrong.
    :param detail: one sentence for a person, naming what was wrong. Never a secret: no body, query string,
        credentials or cookie. It is cut to `DETAIL_BYTES`.
    :param hop: the hop that found out, one of `HOPS`, or None for the hop that writes the answer.
    """

    def __init__(self, kind: Kind, detail: str, hop: str | None = None) -> None:
        detail = cut(detail, DETAIL_BYTES)
        super().__init__(kind, detail, hop)
        self.kind = kind
        self.detail = detail
        self.hop = hop

    def __str__(self) -> str:
        return f"{self.kind.public_name}: {self.detail}"
