"""Heads of HTTP/1.1 messages to bytes. Pure; refuses to write what a reader could take for two messages."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def reason_phrase(status: int) -> bytes:
    """The registered reason phrase of *status*, empty when it has none (RFC 9110 section 15)."""
    return _REASONS.get(status, b"")


def request_head(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The head of a request (RFC 9112 section 3).

    :raises ValueError: when a part holds a line break.
    """
    return _head(b"%b %b HTTP/1.1" % (method, target), headers)


def response_head(status: int, reason: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The head of a response (RFC 9112 section 4).

    :raises ValueError: when a part holds a line break.
    """
    return _head(b"HTTP/1.1 %d %b" % (status, reason), headers)


def _head(start_line: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    head = b"\r\n".join([start_line, *map(b": ".join, headers), b"", b""])
    lines = len(headers) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise ValueError("a line break in a message head")
    return head
