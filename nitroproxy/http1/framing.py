"""What the fields of a head decide of a message's framing and of the connection (RFC 9112 sections 6 and 9). Pure."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from nitroproxy.http1.headers import members
from nitroproxy.http1.messages import Fields

_LONGEST_BODY: Final = (1 << 63) - 1
_LONGEST_BODY_DIGITS: Final = 19
#: Fields that this hop acts on. A name that becomes one of these when "_" is read as "-" is refused, because some
#: recipients (CGI and its children) read it so.
_ACTED_ON: Final = frozenset(
    {b"connection", b"content-length", b"date", b"expect", b"host", b"keep-alive", b"te", b"trailer"}
    | {b"transfer-encoding"}
    | {b"upgrade", b"via", b"proxy-authorization", b"proxy-connection"}
)
#: Members of a Connection field. A dozen are registered; each costs many times its bytes as long as the request lasts.
_MOST_OPTIONS: Final = 32
_USUAL_CONNECTION_BYTES: Final = 64
#: ``Keep-Alive: timeout=N``, N in seconds (RFC 2068 section 19.7.1.1); more digits than these mean forever.
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?i)(?:^|[,;])[ \t]*timeout[ \t]*=[ \t]*\"?([0-9]{1,9})")


class HeadFields(Fields):
    """llhttp's callbacks: collects the fields of one head, and reads those that decide its framing."""

    __slots__ = ()

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp has read a field."""
        self.add(name, value)

    def imitation(self) -> bytes | None:
        """The name of a field that some recipients would read as one that this hop acts on; None when there is none."""
        return next((name for name in self.values if b"_" in name and name.replace(b"_", b"-") in _ACTED_ON), None)

    def connection_options(self) -> frozenset[bytes]:
        """What the Connection fields name, in lower case (RFC 9110 section 7.6.1).

        :raises ValueError: for more than 32 options.
        """
        values = self.values.get(b"connection")
        if values is None:
            return frozenset()
        value = b",".join(values)
        options = _usual_options(value) if len(value) <= _USUAL_CONNECTION_BYTES else _options(value)
        if len(options) > _MOST_OPTIONS:
            raise ValueError(f"the Connection field names more than {_MOST_OPTIONS} options")
        return options

    def content_length(self) -> int | None:
        """The length of the body in bytes, or None without the field (RFC 9112 section 6.2).

        :raises ValueError: for anything but one field with one decimal number.
        """
        values = self.values.get(b"content-length")
        if values is None:
            return None
        digits = values[0]
        if len(values) == 1 and len(digits) <= _LONGEST_BODY_DIGITS and digits.isdigit():
            length = int(digits)
            if length <= _LONGEST_BODY:
                return length
        raise ValueError("the Content-Length field is not one decimal number of at most 2^63-1")

    def transfer_codings(self) -> bytes | None:
        """The Transfer-Encoding fields as one value in lower case, or None without one (RFC 9112 section 6.1)."""
        values = self.values.get(b"transfer-encoding")
        return None if values is None else b",".join(values).lower()


def _options(connection: bytes) -> frozenset[bytes]:
    """What the members of a Connection field name, in lower case."""
    return frozenset(option.lower() for option in members((connection,)))


#: `_options` remembered: most connections have one of a few values. Only short values are given to it.
_usual_options: Final = lru_cache(maxsize=16)(_options)


def offered_protocols(values: list[bytes]) -> bytes | None:
    """The protocols in a request's Upgrade fields, or None when there is none that a hop could switch to.

    HTTP/2 is left out: no hop here speaks it (RFC 9113 section 3.1), and it would hide what follows from a
    destination's defences.
    """
    return b", ".join(protocol for protocol in members(values) if protocol.lower() != b"h2c") or None


def keep_alive_seconds(fields: Fields) -> float:
    """Seconds for which the sender of *fields* offers to keep the connection idle; infinite where it does not say."""
    found = [_KEEP_ALIVE_TIMEOUT.search(value) for value in fields.values.get(b"keep-alive", ())]
    return min((float(match[1]) for match in found if match is not None), default=math.inf)
