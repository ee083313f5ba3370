"""Reads a policy from a file of JSON with comments::

    {
      "accept": [
        {"name": "v1.4", "pcrs": {"0": "…", "1": "…", "2": "…"}, "role": "arn:aws:iam::123456789012:role/name"},
        {"name": "v1.5", "Measurements": {…}, "public": true}  // as nitro-cli and `nitroproxy image` print them
      ],
      "max_age": 3600,
      "allow_debug": false
    }

All errors of a file are reported at once. This module checks the JSON types; `policy` checks the values.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from nitroproxy.attestation.policy import (
    DEFAULT_AGE,
    IMAGE,
    INSTANCE,
    LONGEST_AGE,
    MAX_ENTRIES,
    PCR_BYTES,
    PCR_COUNT,
    ROLE,
    Entry,
    Policy,
    PolicyError,
    is_name,
    shown,
)
from nitroproxy.attestation.refusal import printable
from nitroproxy.config.jsonc import Members, UnreadableError, read

_T = TypeVar("_T")
_D = TypeVar("_D")

_POLICY_KEYS: Final = ("accept", "max_age", "allow_debug")
_ENTRY_KEYS: Final = ("name", "pcrs", "Measurements", "role", "instance", "public")
_HEX: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * PCR_BYTES}}}")

#: The key of a PCR in ``pcrs``, and in nitro-cli's ``Measurements``, where other members stand beside them.
_PCR_KEYS: Final = {"pcrs": "{}", "Measurements": "PCR{}"}
_NOT_MEASURED: Final = ("HashAlgorithm",)

# Placeholders for values that cannot be read: with them the other errors of an entry are found, and no spurious ones.
_SOME_PCR: Final = b"\xff" * PCR_BYTES
_SOME_ROLE: Final = "arn:aws:iam::000000000000:role/unreadable"
_SOME_INSTANCE: Final = "i-00000000"


def load_policy(path: str) -> Policy:
    """The policy in the file at *path*.

    :raises PolicyError: with everything that is wrong; each problem names the file.
    """
    try:
        content = read(path)
    except UnreadableError as error:
        raise PolicyError([str(error)]) from error
    try:
        return policy_from(content)
    except PolicyError as error:
        raise PolicyError(f"{problem} (from {path})" for problem in error.problems) from None


def policy_from(content: object) -> Policy:
    """The policy that the content of a file describes; its objects are `Members`.

    :raises PolicyError: with everything that is wrong.
    """
    reader = _Reader()
    policy = reader.policy(content)
    if reader.problems:
        raise PolicyError(reader.problems)
    assert policy is not None
    return policy


class _Reader:
    """Reads values and collects what is wrong with them.

    :ivar problems: one line each.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def policy(self, content: object) -> Policy | None:
        members = self._members(content, "", _POLICY_KEYS)
        accept = self._take(members, "", "accept", _list, "a list of entries", None)
        if accept is None and "accept" not in members and isinstance(content, Members):
            self.problems.append("accept: missing; expected a list of entries")
        if accept is None:
            entries: tuple[Entry, ...] = (_stand_in("", "accept"),)
        else:
            beyond = MAX_ENTRIES + 1  # One entry more than allowed is enough for the error.
            entries = tuple(self._entry(entry, f"accept[{place}]") for place, entry in enumerate(accept[:beyond]))
        age = self._take(members, "", "max_age", _seconds, f"seconds, an integer 1 to {LONGEST_AGE}", DEFAULT_AGE)
        debug = self._take(members, "", "allow_debug", _boolean, "true or false", False, True)
        try:
            return Policy(entries, age, debug)
        except PolicyError as error:
            self.problems += error.problems
            return None

    def _entry(self, content: object, path: str) -> Entry:
        members = self._members(content, path, _ENTRY_KEYS)
        if not isinstance(content, Members):
            return _stand_in("", path)
        path = f"{path}."
        if "name" not in members:
            self.problems.append(f"{path}name: missing; expected a text, for people")
        name = self._take(members, path, "name", _text, "a string", f"unreadable {path}")
        if "pcrs" in members and "Measurements" in members:
            self.problems.append(f"{path}Measurements: expected either this or pcrs, got both")
        key = "Measurements" if "Measurements" in members else "pcrs"
        pcrs = self._pcrs(members[key], path, key) if key in members else {}
        role = self._take(members, path, "role", _text, "a string", None, _SOME_ROLE)
        instance = self._take(members, path, "instance", _text, "a string", None, _SOME_INSTANCE)
        bound = role is not None or instance is not None or not pcrs.keys().isdisjoint((ROLE, INSTANCE))
        public = self._take(members, path, "public", _boolean, "true or false", False, not bound)
        try:
            return Entry(name, pcrs, role, instance, public)
        except PolicyError as error:
            self.problems += (path + _as_written(problem, key) for problem in error.problems)
            return _stand_in(name, path)

    def _pcrs(self, content: object, path: str, key: str) -> dict[int, bytes]:
        form = _PCR_KEYS[key]
        indices = {form.format(index): index for index in range(PCR_COUNT)}
        beside = _NOT_MEASURED if key == "Measurements" else ()
        before = len(self.problems)
        members = self._members(content, f"{path}{key}", (*indices, *beside))
        expected = f"{2 * PCR_BYTES} hexadecimal digits"
        pcrs = {
            index: self._take(members, f"{path}{key}.", name, _octets, expected, _SOME_PCR)
            for name, index in indices.items()
            if name in members
        }
        if len(self.problems) > before:
            pcrs = dict.fromkeys(IMAGE, _SOME_PCR) | pcrs
        return pcrs

    def _members(self, content: object, path: str, known: Collection[str]) -> dict[str, object]:
        """The members of an object, by their names, those of other names left out."""
        if not isinstance(content, Members):
            self.problems.append(f"{path or 'policy'}: expected an object, got {_json(content)}")
            return {}
        found: dict[str, object] = {}
        for name, value in content:
            place = f"{path}.{name}" if path else name
            if name in found:
                self.problems.append(f"{printable(place)}: given more than once")
            elif name in known:
                found[name] = value
            else:
                self.problems.append(f"{printable(place)}: unknown key{_hint(name, path, known)}")
        return found

    def _take(
        self,
        members: Mapping[str, object],
        path: str,
        key: str,
        convert: Callable[[object], _T | None],
        expected: str,
        default: _D,
        stand_in: _T | None = None,
    ) -> _T | _D:
        """The converted value of *key*; *default* if it is absent, *stand_in* or else *default* if it is wrong."""
        if key not in members:
            return default
        value = convert(members[key])
        if value is not None:
            return value
        self.problems.append(f"{path}{key}: expected {expected}, got {_json(members[key])}")
        return default if stand_in is None else stand_in


def _stand_in(name: str, path: str) -> Entry:
    """A valid entry of this name, if it may have it."""
    return Entry(name if is_name(name) else f"unreadable {path}", dict.fromkeys(IMAGE, _SOME_PCR), public=True)


def _as_written(problem: str, key: str) -> str:
    """A problem of `Entry`, with ``pcrs.0`` as it is called in the file."""
    if key == "pcrs":
        return problem
    return re.sub(r"^pcrs(?:\.([0-9]+))?:", lambda match: f"{key}{f'.PCR{match[1]}' if match[1] else ''}:", problem)


def _hint(name: str, path: str, known: Collection[str]) -> str:
    if not path and name in _ENTRY_KEYS:
        return f'; it belongs into an entry: {{"accept": [{{"name": "...", {json.dumps(name)}: ...}}]}}'
    if path.endswith(".pcrs"):
        return f'; expected "0" to "{PCR_COUNT - 1}"'
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of: {', '.join(known)}"


def _list(value: object) -> Sequence[object] | None:
    return value if isinstance(value, list) and not isinstance(value, Members) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _seconds(value: object) -> timedelta | None:
    return timedelta(seconds=value) if type(value) is int and 1 <= value <= LONGEST_AGE else None


def _octets(value: object) -> bytes | None:
    return bytes.fromhex(value) if isinstance(value, str) and _HEX.fullmatch(value) else None


def _json(value: object) -> str:
    """*value* for a message."""
    if isinstance(value, Members):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shown(value)
