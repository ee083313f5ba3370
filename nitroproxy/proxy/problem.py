"""A failure as the response that tells a client of it (RFC 9457, RFC 9209)."""

from __future__ import annotations

import json

from nitroproxy.errors import RETRY_AFTER_SECONDS, Kind, ProxyError
from nitroproxy.http1.messages import Headers

_LONGEST_DETAIL = 512
#: What is passed on.
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT"


def problem(error: ProxyError, hop: str, request_id: str, methods: bytes = METHODS) -> tuple[Headers, bytes]:
    """The headers and the body of the response to a request that failed with *error*.

    :param methods: what is allowed where the method was not.
    :param hop: who answers, and who found out unless the error says otherwise.
    """
    kind = error.kind
    found_by = error.hop or hop
    document = {
        "type": f"urn:nitroproxy:error:{kind.public_name}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail[:_LONGEST_DETAIL],
        "error": kind.public_name,
        "hop": found_by,
        "request_id": request_id,
    }
    body = json.dumps(document).encode("ascii") + b"\n"
    headers: Headers = [
        (b"Content-Type", b"application/problem+json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"Proxy-Status", f"{found_by}; error={kind.proxy_status}".encode("ascii")),
    ]
    if kind in RETRY_AFTER_SECONDS:
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_SECONDS[kind]))
    if kind is Kind.METHOD_NOT_ALLOWED:
        headers.append((b"Allow", methods))
    return headers, body


def read_problem(body: bytes) -> ProxyError | None:
    """The failure that another hop's problem document tells of, or None when *body* is not one."""
    try:
        document = json.loads(body)
        kind = Kind.from_public_name(document["error"])
        detail, hop = document["detail"], document["hop"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if kind is None or not isinstance(detail, str) or not isinstance(hop, str):
        return None
    if not hop.replace("-", "").isalnum() or not hop.isascii():
        return None
    return ProxyError(kind, detail, hop)
