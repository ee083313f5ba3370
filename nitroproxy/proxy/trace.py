"""What identifies a request and a hop on the way: request ids, the W3C trace context, and our name in Via.

Between our own hops a request's id travels in `REQUEST_ID`, which no destination receives. A client's ``X-Request-Id``
serves as the id too, and is forwarded to the destination as every other field is.

A destination can neither link two requests nor count them by what these fields hold: ids are random, and our name in
Via is new for each request.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from hashlib import blake2s
from hmac import compare_digest
from typing import Final

from nitroproxy.http1.headers import names_in_via
from nitroproxy.http1.messages import Headers, Request

#: The field that carries a request's id between our hops and in every answer.
REQUEST_ID: Final = b"Nitroproxy-Request-Id"
_LOWER_REQUEST_ID: Final = REQUEST_ID.lower()
#: Fields of a request that are not forwarded as they came: `trace_headers` writes what the next hop gets.
NOT_PASSED_ON: Final = frozenset({_LOWER_REQUEST_ID, b"traceparent"})
#: An id stands in log lines, fields and command lines, so it has no other characters and at most 64 bytes.
_USABLE_ID: Final = re.compile(rb"[0-9A-Za-z._-]{1,64}")
#: version-traceid-parentid-flags of W3C Trace Context section 3.2; later versions may append fields (section 3.2.4).
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_INVALID_VERSION: Final = b"ff"
#: Bits of the flags that are known: sampled, and a random trace id.
_KNOWN_FLAGS: Final = 0x03
#: Bytes of randomness in one use of our name in Via, and of its authentication.
_NONCE_BYTES: Final = 8
_MAC_BYTES: Final = 8


def new_request_id() -> bytes:
    """A random id of 128 bits, in hexadecimal."""
    return os.urandom(16).hex().encode("ascii")


def request_id_of(request: Request) -> bytes:
    """The id of *request*: from `REQUEST_ID`, else from ``X-Request-Id``, else a new one.

    A value with other characters than an id has, or a longer one, is not used.
    """
    for name in (_LOWER_REQUEST_ID, b"x-request-id"):
        given = request.fields.get(name)
        if given and _USABLE_ID.fullmatch(given):
            return given
    return new_request_id()


def given_traceparent(request: Request) -> bytes:
    """The trace context that *request* brought, as version 00 writes it; empty when there is none that is valid.

    A later version is read as far as version 00 defines it and written as version 00 (W3C Trace Context section
    3.2.4); what it appends is dropped. Two fields are as invalid as none.
    """
    values = request.fields.values.get(b"traceparent", [])
    found = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or found[1] == _INVALID_VERSION:
        return b""
    version, ids, flags, more = found.groups()
    if version == b"00":
        return values[0] if more is None else b""
    return b"00-%b-%02x" % (ids, int(flags, 16) & _KNOWN_FLAGS)


def traceparent_of(request: Request, *, make: bool) -> bytes:
    """The trace context of *request*: `given_traceparent`, or where that is empty a new one or nothing.

    :param make: whether a new one is made.
    """
    given = given_traceparent(request)
    return given or (b"00-%b-%b-01" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode()) if make else b"")


def without_stale_state(headers: Headers, request: Request) -> Headers:
    """*headers*, without ``tracestate`` unless *request* brought a valid ``traceparent`` with it (W3C Trace Context
    sections 3.2 and 3.3)."""
    if b"tracestate" not in request.fields.values or given_traceparent(request):
        return headers
    return [header for header in headers if header[0].lower() != b"tracestate"]


def trace_headers(request_id: bytes, traceparent: bytes, *, ours: bool = True) -> Headers:
    """The fields that identify a request to the next hop, its id first.

    :param traceparent: empty: none.
    :param ours: the next hop is one of ours; a destination does not get the id.
    """
    headers: Headers = [(REQUEST_ID, request_id)] if ours else []
    if traceparent:
        headers.append((b"traceparent", traceparent))
    return headers


class ViaName:
    """A listener's name in the Via of requests: new for each request, and recognized when a request comes back.

    A name consists of the hop's name, a random number, and a keyed hash of that number (BLAKE2s, RFC 7693). Without the
    key it is not possible to tell that two names belong to one process, or to make one. All processes of a daemon share
    the key, so that each recognizes a request that another has forwarded.

    :param hop: what the name begins with.
    :param key: secret, 16 to 32 bytes.
    """

    def __init__(self, hop: str, key: bytes) -> None:
        self._prefix = f"{hop}-".encode("ascii")
        self._key = key
        self._own: Final = re.compile(re.escape(self._prefix) + rb"([0-9a-f]{%d})" % (2 * (_NONCE_BYTES + _MAC_BYTES)))

    def fresh(self) -> bytes:
        """A name for one request (RFC 9110 section 7.6.3, received-by)."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + (nonce + self._mac(nonce)).hex().encode("ascii")

    def is_in(self, via: Sequence[bytes]) -> bool:
        """Whether a request with these Via fields has been here before."""
        return any(self._is_own(name) for name in names_in_via(via, self._prefix))

    def _is_own(self, name: bytes) -> bool:
        found = self._own.fullmatch(name)
        if found is None:
            return False
        given = bytes.fromhex(found[1].decode("ascii"))
        return compare_digest(given[_NONCE_BYTES:], self._mac(given[:_NONCE_BYTES]))

    def _mac(self, nonce: bytes) -> bytes:
        return blake2s(nonce, key=self._key, digest_size=_MAC_BYTES).digest()
