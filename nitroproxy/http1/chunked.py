"""The chunked transfer coding, both ways (RFC 9112 section 7.1). Pure: bytes in, bytes out.

Reading is strict where request smuggling lives: sizes are 1 to 16 hexadecimal digits, lines end in CRLF, extensions
must be well formed (they are dropped), trailers must be well formed (they are dropped too: RFC 9110 section 6.5.1).
"""

from __future__ import annotations

import enum
import re
from typing import Final

from nitroproxy.http1.faults import shown

#: Longest line of a chunk's size with its extensions, in bytes. nginx and Node.js stop at comparable lengths.
_SIZE_LINE_BYTES: Final = 256

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
_TRAILER: Final = re.compile(_TOKEN + rb":[\t \x21-\x7e\x80-\xff]*")

#: The end of a chunked body without trailers.
LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkError(ValueError):
    """The bytes are not a valid chunked body; the message says why."""


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    DONE = enum.auto()


class ChunkedDecoder:
    """Takes a chunked body in any pieces and gives its content.

    :param trailer_bytes: longest trailer section, in bytes.
    :param trailer_count: most trailer fields.
    """

    __slots__ = ("_carry", "_left", "_state", "_trailer_bytes", "_trailer_count")

    def __init__(self, trailer_bytes: int, trailer_count: int) -> None:
        self._carry = b""
        self._state = _State.SIZE
        self._left = 0
        self._trailer_bytes = trailer_bytes
        self._trailer_count = trailer_count

    @property
    def done(self) -> bool:
        """The last chunk and the trailer section have been read."""
        return self._state is _State.DONE

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Decode the next piece.

        :returns: the content in it, and what follows the body (empty unless `done`).
        :raises ChunkError: for anything that is not a chunked body.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        while position < end and self._state is not _State.DONE:
            if self._state is _State.DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _State.DATA_END
                continue
            newline = data.find(b"\n", position)
            if newline < 0:
                self._keep_partial_line(data[position:])
                return b"".join(pieces), b""
            if newline == position or data[newline - 1] != 0x0D:
                raise ChunkError("a line of the chunked coding ends in a bare LF")
            self._line(data[position : newline - 1])
            position = newline + 1
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return content, data[position:]

    def _keep_partial_line(self, rest: bytes) -> None:
        if self._state is _State.DATA_END and rest != b"\r":
            raise ChunkError("a chunk is longer than its size says")
        longest = _SIZE_LINE_BYTES if self._state is _State.SIZE else self._trailer_bytes
        if len(rest) > longest:
            raise ChunkError("a line of the chunked coding is too long or not terminated")
        self._carry = rest

    def _line(self, line: bytes) -> None:
        if self._state is _State.DATA_END:
            if line:
                raise ChunkError("a chunk is longer than its size says")
            self._state = _State.SIZE
        elif self._state is _State.SIZE:
            match = _SIZE_LINE.fullmatch(line) if len(line) <= _SIZE_LINE_BYTES else None
            if match is None:
                raise ChunkError("the size or an extension of a chunk is malformed")
            self._left = int(match[1], 16)
            if self._left >= 1 << 63:
                raise ChunkError("a chunk's size is above 2^63-1")
            self._state = _State.DATA if self._left else _State.TRAILER
        elif not line:
            self._state = _State.DONE
        else:
            self._trailer_bytes -= len(line) + 2
            self._trailer_count -= 1
            if self._trailer_bytes < 0 or self._trailer_count < 0:
                raise ChunkError("the trailer section is too large")
            if _TRAILER.fullmatch(line) is None:
                name = line.partition(b":")[0]
                raise ChunkError(f"the trailer field {shown(name)} is malformed")


def encode_chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """*data* as one chunk, in three pieces for a vectored write.

    :raises ValueError: for empty data, which would end the body.
    """
    if not data:
        raise ValueError("an empty chunk would end the body")
    return b"%x\r\n" % len(data), data, b"\r\n"
