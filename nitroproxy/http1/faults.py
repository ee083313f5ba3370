"""What is wrong with a message that is refused, in words that name the field and never its value. Pure.

llhttp and the quick checks of `reader` say that a head is wrong; this finds where, for the person who has to fix the
sender. It runs once for each refused message, so it need not be fast.
"""

from __future__ import annotations

import re
from typing import Final

#: Bytes of a name that are shown.
_SHOWN_BYTES: Final = 64
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_A_HEAD: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NOT_IN_A_TARGET: Final = re.compile(rb"[^!-~]")


def shown(name: bytes) -> str:
    """A field name, method or the like in quotes, escaped and cut to a size that a message can hold."""
    text = ascii(name[:_SHOWN_BYTES].decode("latin-1"))
    return text if len(name) <= _SHOWN_BYTES else f"{text}…"


def odd_byte(head: bytes, start: int = 0) -> str | None:
    """Where *head* holds a control character, a bare CR or a bare LF; None when it holds none after *start*."""
    found = _NOT_IN_A_HEAD.search(head, start)
    if found is None:
        return None
    byte = found[0][0]
    what = {0x0A: "a bare LF", 0x0D: "a bare CR"}.get(byte, f"the control character 0x{byte:02x}")
    return f"{_place(head, found.start())} holds {what}"


def _place(head: bytes, position: int) -> str:
    line_start = head.rfind(b"\r\n", 0, position) + 2
    if line_start < 2:
        return "the start line"
    name, colon, _ = head[line_start:].partition(b":")
    if colon and line_start + len(name) < position and _TOKEN.fullmatch(name):
        return f"the field {shown(name)}"
    number = head.count(b"\r\n", 0, position)
    return f"line {number} of the header section"


def misshapen_line(head: bytes) -> str | None:
    """The first thing in *head* that no HTTP/1.1 reader should take: a target that is not ASCII, a field line without a
    colon or with an impossible name, a folded one (RFC 9112 sections 3.2, 5.1 and 5.2). None when there is none."""
    start_line, *lines = head.split(b"\r\n")
    target = start_line.split(b" ")[1:2]
    if not start_line.startswith(b"HTTP/") and target and (odd := _NOT_IN_A_TARGET.search(target[0])):
        return f"the request target holds the byte 0x{odd[0][0]:02x}: percent-encode what is no visible ASCII character"
    before = "the start line"
    for number, line in enumerate(lines, 1):
        if not line:
            break
        name, colon, _ = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return f"{before} is followed by a line that begins with white space: folded fields are refused"
        if not colon:
            return f"line {number} of the header section, after {before}, has no colon"
        if _TOKEN.fullmatch(name) is None:
            if _TOKEN.fullmatch(name.rstrip(b" \t")):
                return f"there is white space between the field name {shown(name.rstrip())} and its colon"
            if not name:
                return f"line {number} of the header section, after {before}, has no field name"
            return f"the field name {shown(name)} holds a character that no name has"
        before = f"the field {shown(name)}"
    return None


def longest_field(head: bytes) -> str:
    """The field of a header section that takes most of it, or the start line if that does."""
    start_line, *lines = head.split(b"\r\n")
    longest = max(lines, key=len, default=b"")
    if len(start_line) >= len(longest):
        return f"the start line has {len(start_line)}"
    name = longest.partition(b":")[0]
    return f"the field {shown(name)} has {len(longest)}"
