"""What identifies a request on its way from hop to hop: its id, and the W3C trace context."""

from __future__ import annotations

import itertools
import os
import re
from typing import Final

from nitroproxy.http1.messages import Headers, Request

_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._-]{1,64}")
#: version-trace_id-parent_id-flags; all-zero ids are invalid (W3C Trace Context section 3.2).
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


#: This process, in the ids that it makes, and how many it has made.
_PROCESS: Final = os.urandom(6).hex().encode("ascii")
_numbers: Final = itertools.count(1)


def new_request_id() -> bytes:
    """An id that no other request has."""
    return b"%b-%x" % (_PROCESS, next(_numbers))


def request_id_of(request: Request) -> bytes:
    """The id that *request* brought along, or a new one when it brought none that can be used."""
    given = request.fields.get(b"x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else new_request_id()


def traceparent_of(request: Request, *, make: bool) -> bytes:
    """The trace context that *request* brought along; when it has none that is valid, a new one or nothing.

    :param make: whether a new one is made.
    """
    given = request.fields.get(b"traceparent")
    if given and _TRACEPARENT.fullmatch(given):
        return given
    return b"00-%b-%b-01" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode()) if make else b""


def trace_headers(request_id: bytes, traceparent: bytes) -> Headers:
    """The fields that carry both to the next hop."""
    headers: Headers = [(b"X-Request-Id", request_id)]
    if traceparent:
        headers.append((b"traceparent", traceparent))
    return headers
