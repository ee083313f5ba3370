"""The heads of HTTP/1.1 messages as values, and the limits they are read under. No syntax, no I/O.

Field names keep the spelling they arrived with and are looked up without regard to case (RFC 9110 section 5.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: A header section in order: ``(name, value)``, each name a token, each value without surrounding white space.
Headers = list[tuple[bytes, bytes]]

#: `Request.content_length` of a body of unknown length that arrives in chunks (RFC 9112 section 7.1).
CHUNKED = -1

#: `Response.content_length` of a body that ends with the connection (RFC 9112 section 6.3, rule 8).
UNTIL_CLOSE = -2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a message head is read before it is refused."""

    #: Bytes of a request line, and bytes of a header section with its start line.
    target_bytes: int = 16384
    header_bytes: int = 65536
    #: Number of fields.
    header_count: int = 100


@dataclass(init=False, slots=True)
class Fields:
    """A header section.

    :ivar in_order: as it arrived.
    :ivar values: those of each field, in order, by its name in lower case.
    """

    in_order: Headers
    values: dict[bytes, list[bytes]]

    def __init__(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.in_order = []
        self.values = {}
        for name, value in headers:
            self.add(name, value)

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field, without white space after its value (RFC 9110 section 5.5)."""
        value = value.rstrip(b" \t")
        self.in_order.append((name, value))
        name = name.lower()
        values = self.values.get(name)
        if values is None:
            self.values[name] = [value]
        else:
            values.append(value)

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field called *name* (given in lower case), or None."""
        values = self.values.get(name)
        return None if values is None else values[0]


@dataclass(slots=True)
class Request:
    """A request's head, its framing already decided.

    :ivar target: the request-target exactly as it arrived (RFC 9112 section 3.2).
    :ivar http10: the client speaks HTTP/1.0.
    :ivar content_length: bytes of body to come, or `CHUNKED`; 0 when there is none.
    :ivar keep_alive: the client wants the connection kept (RFC 9112 section 9.3).
    :ivar connection_options: what its Connection fields name, in lower case (RFC 9110 section 7.6.1).
    :ivar expects_continue: it waits for a 100 before sending its body (RFC 9110 section 10.1.1).
    :ivar upgrade: the protocols it offers to switch to, or None (RFC 9110 section 7.8).
    """

    method: bytes
    target: bytes
    fields: Fields
    http10: bool = False
    content_length: int = 0
    keep_alive: bool = True
    connection_options: frozenset[bytes] = frozenset()
    expects_continue: bool = False
    upgrade: bytes | None = None


@dataclass(slots=True)
class Response:
    """A response's head, its framing already decided from it and from the request that it answers.

    :ivar content_length: bytes of body to come, `CHUNKED` or `UNTIL_CLOSE`; 0 when there is none.
    :ivar keep_alive: the connection may serve another request after this one.
    :ivar declared_length: what its Content-Length says, which to HEAD is of a body that is not sent; None without one.
    """

    status: int
    reason: bytes
    fields: Fields
    content_length: int = 0
    keep_alive: bool = True
    connection_options: frozenset[bytes] = frozenset()
    declared_length: int | None = None
