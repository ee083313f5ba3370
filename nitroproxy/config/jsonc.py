"""Reads a file of JSON with comments. Members of the same name are all kept, and errors have their position.

It knows nothing of the file's purpose.
"""

from __future__ import annotations

import json
import re
from typing import Final

import json5

#: Characters of a file, at most: some 200,000 names of hosts.
LONGEST_FILE: Final = 8 << 20


class Members(list[tuple[str, object]]):
    """A JSON object's members in their order, including those of the same name."""


class UnreadableError(Exception):
    """The file cannot be read; the message is one line with the file, the position and the reason."""


def read(path: str) -> object:
    """The content of the file at *path*; objects are `Members`.

    JSON is read as such (RFC 8259). What is not JSON is read as JSON5, for comments and trailing commas.

    :raises UnreadableError: if the file does not exist, is too large or is neither.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: not UTF-8 at byte {error.start}") from error
    if len(text) > LONGEST_FILE:
        raise UnreadableError(f"{path}: is longer than {LONGEST_FILE >> 20} MiB")
    if not text.strip():
        raise UnreadableError(f"{path}: is empty")
    try:
        return parse(text)
    except RecursionError as error:
        raise UnreadableError(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(path + _position_and_reason(str(error))) from error


def parse(text: str) -> object:
    """The value that *text* stands for; objects are `Members`.

    :raises ValueError: if it is neither JSON nor JSON5.
    :raises RecursionError: if it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=Members)
    except json.JSONDecodeError:
        return json5.loads(text, object_pairs_hook=Members)


def _position_and_reason(message: str) -> str:
    """json5's message as ``:line:column: reason``, the form that editors know."""
    match = re.fullmatch(r'<string>:(\d+) Unexpected (?:"(.+)"|(.+)) at column (\d+)', message, re.DOTALL)
    if match is None:
        return f": {message}"
    line, character, other, column = match.groups()
    return f":{line}:{column}: unexpected {repr(character) if character else other}"
