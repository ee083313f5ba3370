"""The beginning of a SOCKS connection, version 5 (RFC 1928): which way to authenticate, then where to connect. Pure.

Of the commands there is CONNECT, of the ways to authenticate none: a client that insists on a user name and password
(RFC 1929) is refused. Bytes may come in any pieces, and the request with the greeting; both are bounded by their form.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from nitroproxy.errors import Kind, ProxyError

VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0x00
_CONNECT: Final = 0x01
_COMMANDS: Final = {0x02: "BIND", 0x03: "UDP ASSOCIATE"}
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
#: The answer to a greeting: the way chosen, or that none is acceptable (section 3).
_CHOSEN: Final = bytes([VERSION, _NO_AUTHENTICATION])
_NONE_ACCEPTABLE: Final = bytes([VERSION, 0xFF])

#: Replies (section 6).
SUCCEEDED: Final = 0x00
_GENERAL_FAILURE: Final = 0x01
_COMMAND_NOT_SUPPORTED: Final = 0x07
_ADDRESS_NOT_SUPPORTED: Final = 0x08
#: Those for failures that the client did not make, by kind; the others are general failures. There is none for a
#: timeout: "TTL expired" is what other servers send.
_REPLIES: Final = {
    Kind.PLAINTEXT_DESTINATION: 0x02,
    Kind.DESTINATION_DENIED: 0x02,
    Kind.DESTINATION_NOT_ALLOWED: 0x02,
    Kind.ADDRESS_DENIED: 0x02,
    Kind.UNREACHABLE: 0x03,
    Kind.DNS_ERROR: 0x04,
    Kind.DNS_TIMEOUT: 0x04,
    Kind.CONNECTION_REFUSED: 0x05,
    Kind.CONNECTION_TIMEOUT: 0x06,
    Kind.METHOD_NOT_ALLOWED: _COMMAND_NOT_SUPPORTED,
    Kind.INVALID_TARGET: _ADDRESS_NOT_SUPPORTED,
}


def reply(code: int) -> bytes:
    """The answer to a request. The address that the server is bound to is left out, as most servers do: it is the
    relay's and says nothing to the client."""
    return bytes([VERSION, code, 0, _IPV4]) + bytes(6)


class Handshake:
    """Reads one. Feed it, `read`, send what `take_answer` gives, until there is a destination or a failure.

    :ivar over: the destination has been given.
    """

    def __init__(self) -> None:
        self.over = False
        self._buffer = b""
        self._answer = b""
        self._greeted = False

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not read yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._buffer += data

    def take_answer(self) -> bytes:
        """What to send to the client now."""
        answer, self._answer = self._answer, b""
        return answer

    def take_rest(self) -> bytes:
        """Everything that was fed and not read: the first bytes of the tunnel."""
        rest, self._buffer = self._buffer, b""
        return rest

    def read(self) -> bytes | None:
        """The destination, ``host:port`` as for CONNECT in HTTP, once it is known; None until then. It is as the
        client wrote it.

        :raises ProxyError: when it cannot be; `answer_to` says what to send then.
        """
        if not self._greeted and not self._read_greeting():
            return None
        return self._read_request()

    def answer_to(self, error: ProxyError) -> bytes:
        """What to send because of *error*; then the connection is to be closed."""
        return reply(_REPLIES.get(error.kind, _GENERAL_FAILURE)) if self._greeted else _NONE_ACCEPTABLE

    def _read_greeting(self) -> bool:
        data = self._buffer
        if data and data[0] != VERSION:
            raise ProxyError(Kind.MALFORMED_REQUEST, f"not SOCKS 5: the first byte is {data[0]:#04x}")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return False
        offered, self._buffer = data[2 : 2 + data[1]], data[2 + data[1] :]
        if _NO_AUTHENTICATION not in offered:
            raise ProxyError(Kind.MALFORMED_REQUEST, "the client does not offer SOCKS 5 without authentication")
        self._greeted = True
        self._answer = _CHOSEN
        return True

    def _read_request(self) -> bytes | None:
        data = self._buffer
        if data and data[0] != VERSION:
            raise ProxyError(Kind.MALFORMED_REQUEST, f"not a SOCKS 5 request: its first byte is {data[0]:#04x}")
        if len(data) > 1 and data[1] != _CONNECT:
            command = _COMMANDS.get(data[1], f"{data[1]:#04x}")
            raise ProxyError(Kind.METHOD_NOT_ALLOWED, f"of the commands of SOCKS 5 there is CONNECT, not {command}")
        if len(data) < 5:
            return None
        kind, first = data[3], data[4]
        if kind not in (_IPV4, _NAME, _IPV6):
            raise ProxyError(Kind.INVALID_TARGET, f"SOCKS 5 has no address type {kind:#04x}")
        begin, size = (5, first) if kind == _NAME else (4, 4 if kind == _IPV4 else 16)
        end = begin + size
        if len(data) < end + 2:
            return None
        host = data[begin:end]
        (port,) = struct.unpack_from("!H", data, end)
        destination = b"%b:%d" % (_name(host) if kind == _NAME else _literal(ip_address(host)), port)
        self._buffer = data[end + 2 :]
        self.over = True
        return destination


def _literal(address: IPv4Address | IPv6Address) -> bytes:
    return (f"[{address}]" if address.version == 6 else str(address)).encode("ascii")


def _name(name: bytes) -> bytes:
    """A name as an authority has it: some clients send IPv6 addresses as names."""
    if b":" not in name:
        return name
    try:
        return _literal(IPv6Address(name.decode("ascii")))
    except ValueError:
        raise ProxyError(Kind.INVALID_TARGET, "a name has no colon") from None
