"""What a child of the enclave's init prints, as lines of a bounded length; the last ones are kept for its obituary."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

#: Bytes of a line; a longer one is cut into several.
LINE_BYTES: Final = 8192
#: Lines that are kept, characters of each, and bytes of all: an event's message is cut at its end, and here the end is
#: what says why.
_KEPT_LINES: Final = 20
_KEPT_CHARACTERS: Final = 500
_KEPT_BYTES: Final = 3072


class LineSplitter:
    """Splits one stream into lines.

    :param take: called with each line, without its end; undecodable bytes are escaped.
    """

    def __init__(self, take: Callable[[str], object]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._cut(line.removesuffix(b"\r"))
        while len(self._rest) > LINE_BYTES:
            self._say(self._rest[:LINE_BYTES])
            self._rest = self._rest[LINE_BYTES:]

    def end(self) -> None:
        """The stream is over: what follows the last line end is a line too."""
        if self._rest:
            self._cut(self._rest)
            self._rest = b""

    def _cut(self, line: bytes) -> None:
        for at in range(0, max(len(line), 1), LINE_BYTES):
            self._say(line[at : at + LINE_BYTES])

    def _say(self, line: bytes) -> None:
        self._take(line.decode("utf-8", "backslashreplace"))


class LastLines:
    """The last lines of a child, for the message that says how it ended."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def add(self, line: str) -> None:
        """Keep *line*, shortened, in place of the oldest one."""
        self._lines.append(line[:_KEPT_CHARACTERS])

    def __str__(self) -> str:
        kept: deque[str] = deque()
        room = _KEPT_BYTES
        for line in reversed(self._lines):
            room -= len(line.encode("utf-8", "backslashreplace")) + 1
            if room < 0:
                break
            kept.appendleft(line)
        return "\n".join(kept)
