"""Loads the configuration: file, environment and command line into `Settings`, with where each value came from.

Precedence: command-line option > environment > file > default. All errors of all sources are found in one pass and
reported in one line each. `schema` describes the keys. This module knows nothing of Twisted and reads only that file.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import msgspec

from nitroproxy.config.contradictions import contradictions
from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.jsonc import Members, UnreadableError, read
from nitroproxy.config.schema import Attestation, Credentials, Logging, Settings
from nitroproxy.config.traffic import Egress, Ingress, Limits, Tls
from nitroproxy.config.values import BOOLEANS, plain, show, takes_list, understand, violations

__all__ = [
    "DEFAULT_PATH",
    "Attestation",
    "Configuration",
    "ConfigurationError",
    "Credentials",
    "Egress",
    "Enclave",
    "HostProxy",
    "Ingress",
    "Limits",
    "Logging",
    "Settings",
    "Tls",
    "Transport",
    "load",
]

#: The configuration file, if neither an option nor the environment names one.
DEFAULT_PATH: Final = "/etc/nitroproxy/config.json"

#: The environment variable that names another one.
PATH_VARIABLE: Final = "NITROPROXY_CONFIG"

_DEBUG_MODE: Final = "DEBUG_MODE"
_PREFIX: Final = "NITROPROXY_"


def _fields() -> Iterator[tuple[str, Any]]:
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            yield f"{section.name}.{field.name}", field.type


#: The type of each key, by its dotted name.
_TYPES: Final[Mapping[str, Any]] = dict(_fields())

#: The key that each variable sets. Of two that set the same key the later one wins.
_VARIABLES: Final[Mapping[str, str]] = {
    "ENCLAVE_CID": "enclave.cid",
    "ENCLAVE_PORT": "enclave.port",
    "HOST_PROXY_PORT": "host_proxy.port",
    "LOG_LEVEL": "logging.level",
} | {_PREFIX + key.replace(".", "_").upper(): key for key in _TYPES}


class ConfigurationError(Exception):
    """The configuration cannot be used.

    :ivar problems: everything that is wrong with it, one line each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Configuration:
    """A valid configuration.

    :ivar debug_mode: whether DEBUG_MODE is true.
    :ivar path: the file that was read; None if no file was named and the default one does not exist.
    :ivar sources: where each key's value came from, for those that are not at their default.
    """

    settings: Settings
    debug_mode: bool
    path: str | None
    sources: Mapping[str, str]

    def source_of(self, key: str) -> str:
        """Where the value of *key* (``host_proxy.port``, or ``DEBUG_MODE``) came from; ``default`` when from nowhere.

        :raises KeyError: if there is no such key.
        """
        if key not in _TYPES and key != _DEBUG_MODE:
            raise KeyError(key)
        return self.sources.get(key, "default")

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Every key, its value as JSON, and its source."""
        for key in _TYPES:
            section, name = key.split(".")
            value = json.dumps(msgspec.to_builtins(getattr(getattr(self.settings, section), name)))
            yield key, value, self.source_of(key)
        yield _DEBUG_MODE, json.dumps(self.debug_mode), self.source_of(_DEBUG_MODE)

    def unusual_rows(self) -> Iterator[tuple[str, str, str]]:
        """Those of `rows` whose value is not the default."""
        usual = replace(self, settings=Settings(), debug_mode=False)
        defaults = {key: value for key, value, _ in usual.rows()}
        return (row for row in self.rows() if row[1] != defaults[row[0]])


@dataclass(frozen=True)
class _Given:
    """A value that a source gives to a key."""

    key: str
    value: object
    source: str


def load(path: str | None, *, options: Sequence[str] = (), environ: Mapping[str, str]) -> Configuration:
    """The configuration that the sources make.

    :param path: the file; None for the one that NITROPROXY_CONFIG names, or else `DEFAULT_PATH` if it exists.
    :param options: assignments from the command line, ``section.key=value``; of two for one key the later one wins.
    :param environ: the environment.
    :raises ConfigurationError: with everything that is wrong.
    """
    problems: list[str] = []
    if path is None:
        path = environ.get(PATH_VARIABLE) or (DEFAULT_PATH if os.path.exists(DEFAULT_PATH) else None)
    debug_mode = _debug_mode(environ, problems)

    # From the lowest precedence to the highest.
    given = chain(
        [_Given("logging.level", "DEBUG", f"env {_DEBUG_MODE}")] if debug_mode else [],
        _from_file(path, problems) if path is not None else [],
        _from_environment(environ, problems),
        _from_options(options, problems),
    )

    tree: dict[str, dict[str, object]] = {section: {} for section in Settings.__struct_fields__}
    sources = {_DEBUG_MODE: f"env {_DEBUG_MODE}"} if environ.get(_DEBUG_MODE) else {}
    doubtful = {_DEBUG_MODE} if debug_mode is None else set()
    for one in given:
        value = plain(one.value, _TYPES[one.key])
        wrong = list(violations(value, _TYPES[one.key]))
        if wrong:
            doubtful.add(one.key)
            problems += (f"{one.key}: {text} (from {one.source})" for text in wrong)
        else:
            section, name = one.key.split(".")
            tree[section][name] = value
            sources[one.key] = one.source
    settings = msgspec.convert(tree, Settings)

    found = Configuration(settings, bool(debug_mode), path, sources)
    problems += _contradictions(found, doubtful)
    if problems:
        raise ConfigurationError(problems)
    return found


def _contradictions(found: Configuration, doubtful: set[str]) -> Iterator[str]:
    """What contradicts each other in *found*, but for keys whose values are wrong by themselves (*doubtful*)."""
    values = {key: value for key, value, _ in found.rows()}
    for contradiction in contradictions(found.settings, found.debug_mode):
        if doubtful.isdisjoint(contradiction.keys):
            key = contradiction.keys[0]
            reason = f": {contradiction.reason}" if contradiction.reason else ""
            yield f"{key}: expected {contradiction.expected}, got {values[key]} (from {found.source_of(key)}){reason}"


def _debug_mode(environ: Mapping[str, str], problems: list[str]) -> bool | None:
    """Whether DEBUG_MODE is on; None if its value is invalid."""
    text = environ.get(_DEBUG_MODE) or "false"
    mode = BOOLEANS.get(text.strip().lower())
    if mode is None:
        problems.append(f"{_DEBUG_MODE}: expected true or false, got {show(text)} (from env {_DEBUG_MODE})")
    return mode


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    for variable, key in _VARIABLES.items():
        text = environ.get(variable)
        # An empty variable counts as absent, as is the custom. For a list it could be meant as an empty one; it is
        # refused later, as an allow list must not fall back to the default by mistake.
        if text or (text is not None and takes_list(_TYPES[key])):
            yield _Given(key, understand(text, _TYPES[key]), f"env {variable}")
    known = (*_VARIABLES, PATH_VARIABLE)
    for variable in environ:
        if variable.startswith(_PREFIX) and variable not in known:
            problems.append(f"{_shown_key(variable)}: unknown variable{_suggestion(variable, known)} (from env)")


def _from_options(options: Sequence[str], problems: list[str]) -> Iterator[_Given]:
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            problems.append(f"--set: expected section.key=value, got {option!r}")
        elif key not in _TYPES:
            problems.append(f"{_shown_key(key)}: unknown key{_suggestion(key, _TYPES)} (from option --set)")
        else:
            yield _Given(key, understand(text, _TYPES[key]), "option --set")


def _from_file(path: str, problems: list[str]) -> Iterator[_Given]:
    try:
        content = read(path)
    except UnreadableError as error:
        problems.append(str(error))
        return
    if not isinstance(content, Members):
        problems.append(f"{path}: expected an object, got {show(content)}")
        return
    for section, members in _unique(content, "", path, problems):
        names = [key.removeprefix(f"{section}.") for key in _TYPES if key.startswith(f"{section}.")]
        if not names:
            suggestion = _suggestion(section, Settings.__struct_fields__)
            problems.append(f"{_shown_key(section)}: unknown section{suggestion} (from {path})")
        elif not isinstance(members, Members):
            problems.append(f"{section}: expected an object, got {show(members)} (from {path})")
        else:
            for name, value in _unique(members, f"{section}.", path, problems):
                key = f"{section}.{name}"
                if name in names:
                    yield _Given(key, value, path)
                else:
                    problems.append(f"{_shown_key(key)}: unknown key{_suggestion(name, names)} (from {path})")


def _unique(members: Members, prefix: str, source: str, problems: list[str]) -> Iterator[tuple[str, object]]:
    """The members, and a problem for each name that occurs more than once (RFC 8259 section 4)."""
    seen: set[str] = set()
    for name, value in members:
        if name in seen:
            problems.append(f"{_shown_key(prefix + name)}: given more than once (from {source})")
        else:
            yield name, value
        seen.add(name)


def _shown_key(name: str) -> str:
    """An unknown name for a message: quoted unless it could be a key."""
    return name if name.replace(".", "_").isidentifier() else repr(name)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""
