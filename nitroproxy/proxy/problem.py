"""Failures as responses: problem documents (RFC 9457) with Proxy-Status (RFC 9209), written and read.

A document is bounded: `ProxyError` cuts its detail to `errors.DETAIL_BYTES`, and everything else in it comes from
closed sets. Reading accepts only hops of `errors.HOPS`.
"""

from __future__ import annotations

import json

from nitroproxy.errors import HOPS, RETRY_AFTER_SECONDS, Kind, ProxyError
from nitroproxy.http1.messages import Headers

#: The methods that a hop forwards, for Allow (RFC 9110 section 10.2.1).
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT"


def problem(error: ProxyError, hop: str, request_id: str, methods: bytes = METHODS) -> tuple[Headers, bytes]:
    """The headers and the body of the response to a request that failed with *error*.

    :param hop: the hop that answers; it also found the failure unless the error names another.
    :param request_id: the id under which every hop logs the request.
    :param methods: for Allow, where the method was refused.
    """
    kind = error.kind
    found_by = error.hop or hop
    document = {
        "type": f"urn:nitroproxy:error:{kind.public_name}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
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
    """The failure in another hop's problem document; None when *body* is not a document of a hop of ours.

    :param body: at most as long as the caller has read; not trusted.
    """
    try:
        document = json.loads(body)
        kind = Kind.from_public_name(document["error"])
        detail, hop = document["detail"], document["hop"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if kind is None or not isinstance(detail, str) or not isinstance(hop, str) or hop not in HOPS:
        return None
    return ProxyError(kind, detail, hop)
