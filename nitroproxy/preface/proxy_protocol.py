"""The PROXY protocol (haproxy's doc/proxy-protocol.txt): a header in which a proxy names the client it connects for.

Versions 1 (a line) and 2 (binary) are read, version 2 is written. Pure. Twisted's reader is not used: it refuses a
header whose first bytes come alone, takes ports such as ``+80`` and addresses that are none, and sets no bound below
64 KiB.

What a header says is the word of whoever sent it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = b"PROXY "
#: Bytes of a header of version 1 with its line end (section 2.1), and of one of version 2 with what it may append: load
#: balancers append some hundred, a client certificate's name and the like.
_LONGEST_V1: Final = 107
_LONGEST_V2: Final = 4096
#: After the signature: version and command, family and transport, and the bytes that follow (section 2.2).
_FIXED: Final = struct.Struct("!BBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4: Final = struct.Struct("!4s4sHH")
_TCP6: Final = struct.Struct("!16s16sHH")
_STREAMS: Final = {0x11: _TCP4, 0x21: _TCP6}
#: Families and transports that the protocol has, and of which the addresses are of no use here: unspecified, UNIX
#: sockets, datagrams.
_WITHOUT_ADDRESSES: Final = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})
#: Of what may be appended: the type of the connection's id (section 2.2.5), and its bytes at most.
_UNIQUE_ID: Final = 0x05
_LONGEST_UNIQUE_ID: Final = 128


class HeaderError(ValueError):
    """What came is no header of the PROXY protocol; the message says why."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The two ends of the client's connection, each an IP address and a port, of one address family."""

    source: tuple[str, int]
    destination: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    :ivar peers: None when it names no client: the proxy speaks for itself, or the client is not on TCP.
    :ivar unique_id: the connection's id (version 2 only); empty without one.
    """

    peers: Peers | None = None
    unique_id: bytes = b""

    def with_id(self, unique_id: bytes) -> Header:
        """The same with another id, of 128 bytes at most."""
        return replace(self, unique_id=unique_id[:_LONGEST_UNIQUE_ID])

    def to_bytes(self) -> bytes:
        """The header in version 2."""
        family, addresses = 0x00, b""
        if self.peers is not None:
            source, destination = map(ip_address, (self.peers.source[0], self.peers.destination[0]))
            if source.version != destination.version:
                source, destination = map(_as_v6, (source, destination))
            family, form = (0x11, _TCP4) if source.version == 4 else (0x21, _TCP6)
            addresses = form.pack(source.packed, destination.packed, self.peers.source[1], self.peers.destination[1])
        command = _PROXY if self.peers is not None else _LOCAL
        appended = struct.pack("!BH", _UNIQUE_ID, len(self.unique_id)) + self.unique_id if self.unique_id else b""
        return _V2 + _FIXED.pack(command, family, len(addresses) + len(appended)) + addresses + appended


def _as_v6(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return IPv6Address(f"::ffff:{address}") if address.version == 4 else address


class HeaderReader:
    """Reads the header at the beginning of a connection; the bytes may come in any pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def buffered(self) -> int:
        """Bytes that were fed and are not part of the header, or of none yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._buffer += data

    def read(self) -> Header | None:
        """The header once it has arrived whole, None until then; what follows it stays for `take_rest`.

        :raises HeaderError: as soon as what has come cannot be one.
        """
        data = self._buffer
        if data[: len(_V2)] == _V2[: len(data)]:
            return self._read_v2(data)
        if data[: len(_V1)] == _V1[: len(data)]:
            return self._read_v1(data)
        raise HeaderError("it does not begin with a header of the PROXY protocol")

    def take_rest(self) -> bytes:
        """Everything that was fed after the header."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _read_v1(self, data: bytes) -> Header | None:
        end = data.find(b"\r\n", 0, _LONGEST_V1)
        if end < 0:
            if len(data) >= _LONGEST_V1:
                raise HeaderError(f"its first line is over {_LONGEST_V1} bytes")
            return None
        self._buffer = data[end + 2 :]
        return Header(_v1_peers(data[:end]))

    def _read_v2(self, data: bytes) -> Header | None:
        begin = len(_V2) + _FIXED.size
        if len(data) < begin:
            return None
        command, family, size = _FIXED.unpack_from(data, len(_V2))
        if command not in (_LOCAL, _PROXY):
            raise HeaderError(f"its version and command are {command:#04x}")
        if size > _LONGEST_V2:
            raise HeaderError(f"it is over {_LONGEST_V2} bytes")
        if len(data) < begin + size:
            return None
        content, self._buffer = data[begin : begin + size], data[begin + size :]
        return _v2_header(command, family, content)


def _v1_peers(line: bytes) -> Peers | None:
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None  # Whatever follows is to be ignored.
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderError("its first line is not PROXY, TCP4 or TCP6, two addresses and two ports")
    version = 4 if words[1] == b"TCP4" else 6
    source, destination = (_v1_address(word, version) for word in words[2:4])
    return Peers((source, _v1_port(words[4])), (destination, _v1_port(words[5])))


def _v1_address(word: bytes, version: int) -> str:
    try:
        address = ip_address(word.decode("ascii"))
    except ValueError:
        raise HeaderError("an address in it is none") from None
    if address.version != version or b"%" in word:
        raise HeaderError(f"an address in it is not one of IPv{version}")
    return str(address)


def _v1_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word.startswith(b"0") and word != b"0") or int(word) > 65535:
        raise HeaderError("a port in it is none")
    return int(word)


def _v2_header(command: int, family: int, content: bytes) -> Header:
    peers: Peers | None = None
    appended = content
    form = _STREAMS.get(family)
    if command == _PROXY and form is not None:
        if len(content) < form.size:
            raise HeaderError("it is too short for its addresses")
        source, destination, source_port, destination_port = form.unpack_from(content)
        peers = Peers((str(ip_address(source)), source_port), (str(ip_address(destination)), destination_port))
        appended = content[form.size :]
    elif command == _PROXY and family not in _WITHOUT_ADDRESSES:
        raise HeaderError(f"its address family and transport are {family:#04x}")
    elif family != 0x00:
        return Header()  # What is appended stands behind addresses that are not read.
    return Header(peers, _unique_id(appended))


def _unique_id(appended: bytes) -> bytes:
    """The id in what is appended to a header, every part of which must be whole."""
    found = b""
    while appended:
        if len(appended) < 3:
            raise HeaderError("what it appends is cut off")
        kind, size = struct.unpack_from("!BH", appended)
        value, appended = appended[3 : 3 + size], appended[3 + size :]
        if len(value) < size:
            raise HeaderError("what it appends is cut off")
        if kind == _UNIQUE_ID:
            if size > _LONGEST_UNIQUE_ID:
                raise HeaderError(f"its id is over {_LONGEST_UNIQUE_ID} bytes")
            found = value
    return found
