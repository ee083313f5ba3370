"""Values and the types of `schema`: reads a value from text, checks one, shows one in a message.

It knows nothing of sources and of the names of keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from nitroproxy.config.jsonc import Members
from nitroproxy.config.kinds import Rule

#: The texts that mean a boolean, in lower case.
BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}

#: The longest value that a message shows whole.
_SHOWN_CHARACTERS: Final = 80


def understand(text: str, wanted: Any) -> object:
    """The value that *text*, from the environment or the command line, stands for where the type *wanted* is expected.

    A string may be bare, and so may the items of a list, between commas; everything else is JSON. A text that is not
    valid is returned unchanged, for `violations` to refuse.
    """
    text = text.strip()
    kind, _ = _taken_apart(inspect.type_info(wanted))
    if isinstance(kind, inspect.BoolType):
        return BOOLEANS.get(text.lower(), text)
    if isinstance(kind, inspect.LiteralType):
        return next((value for value in kind.values if str(value).lower() == text.strip('"').lower()), text)
    if isinstance(kind, inspect.VarTupleType) and text and text[0] != "[":
        return [item.strip() for item in text.split(",")]
    if _part(kind, inspect.StrType) is not None and text != "null" and text[:1] != '"':
        return text
    try:
        return json.loads(text, object_pairs_hook=Members)
    except (ValueError, RecursionError):
        return text


def plain(value: object, wanted: Any) -> object:
    """*value*, with dictionaries for its objects if the type *wanted* takes, or is, any. An object in which a name is
    there more than once stays as it is: `violations` refuses it."""
    kind, _ = _taken_apart(inspect.type_info(wanted))
    takes_objects = any(_part(kind, wanted) for wanted in (inspect.DictType, inspect.StructType))
    return _deeply(value) if takes_objects or _struct_of_items(kind) is not None else value


def _struct_of_items(kind: inspect.Type) -> type[msgspec.Struct] | None:
    """The struct of which *kind* is a list; None when it is another type."""
    if not isinstance(kind, inspect.VarTupleType):
        return None
    item, _ = _taken_apart(kind.item_type)
    return item.cls if isinstance(item, inspect.StructType) else None


def _deeply(value: object) -> object:
    if isinstance(value, list) and not isinstance(value, Members):
        return [_deeply(item) for item in value]
    if not isinstance(value, Members) or _repeated(value):
        return value
    return {name: _deeply(item) for name, item in value}


def _repeated(members: Members) -> list[str]:
    names = [name for name, _ in members]
    return sorted({name for name in names if names.count(name) > 1})


def _members_wrong(members: dict[str, object], kind: inspect.DictType, wanted: Any) -> Iterator[str]:
    """What is wrong with each member of an object whose type is *kind*, part of *wanted*."""
    for name, value in members.items():
        if isinstance(kind.value_type, inspect.StructType):
            yield from (f"{show(name)}: {text}" for text in _fields_wrong(value, kind.value_type.cls))
            continue
        try:
            msgspec.convert({name: value}, wanted)
        except msgspec.ValidationError:
            yield f"expected {_expectation(*_taken_apart(kind.value_type))} for {show(name)}, got {show(value)}"


def _fields_wrong(value: object, struct: type[msgspec.Struct]) -> Iterator[str]:
    """What is wrong with *value* where an object with the fields of *struct* is expected."""
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    if isinstance(value, Members):
        yield from (f"expected each name once, got {show(name)} more than once" for name in _repeated(value))
    elif not isinstance(value, dict):
        yield f"expected an object of {' and '.join(fields)}, got {show(value)}"
    else:
        for name, item in value.items():
            if name in fields:
                yield from (f"{name}: {text}" for text in violations(item, fields[name].type))
            else:
                yield f"expected {' and '.join(fields)}, got {show(name)}"
        yield from (f"{name} is missing" for name, field in fields.items() if field.required and name not in value)


def _wrong_inside(value: object, kind: inspect.Type, wanted: Any) -> Iterator[str]:
    """What is wrong with the members of an object, or with the objects of a list, of the type *kind* of *wanted*."""
    of_fields = _part(kind, inspect.StructType)
    if isinstance(of_fields, inspect.StructType) and (value is not None or of_fields is kind):
        yield from _fields_wrong(value, of_fields.cls)
    struct = _struct_of_items(kind)
    if struct is not None and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from (f"entry {number}: {text}" for text in _fields_wrong(item, struct))
    of_objects = _part(kind, inspect.DictType)
    if of_objects is not None and isinstance(value, Members):
        yield from (f"expected each name once, got {show(name)} more than once" for name in _repeated(value))
    elif isinstance(of_objects, inspect.DictType) and isinstance(value, dict):
        yield from _members_wrong(value, of_objects, wanted)


def violations(value: object, wanted: Any) -> Iterator[str]:
    """The ways in which *value* is not of the type *wanted*: ``expected …, got …``."""
    kind, rule = _taken_apart(inspect.type_info(wanted))
    inside = list(_wrong_inside(value, kind, wanted))
    if inside:
        yield from inside
        return
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        yield f"expected {_expectation(kind, rule)}, got {show(value)}"
        return
    if rule is None or value is None:
        return
    for item in value if isinstance(value, list) else [value]:
        try:
            rule.examine(item)
        except ValueError as error:
            reason = f": {error}" if str(error) else ""
            yield f"expected {rule.expected}, got {show(item)}{reason}"


def takes_list(wanted: Any) -> bool:
    """Whether the type *wanted* is a list."""
    return isinstance(_taken_apart(inspect.type_info(wanted))[0], inspect.VarTupleType)


def show(value: object) -> str:
    """*value* for a message: on one line, and not too long."""
    if isinstance(value, Members):
        return "an object"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _part(kind: inspect.Type, wanted: type[inspect.Type]) -> inspect.Type | None:
    """*kind* itself, or the part of it if it is a union, that is a *wanted*."""
    parts = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return next((part for part, _ in map(_taken_apart, parts) if isinstance(part, wanted)), None)


def _taken_apart(info: inspect.Type) -> tuple[inspect.Type, Rule | None]:
    """The type without its metadata, and the rule in those; of a union, the rule of a part."""
    rule = None
    if isinstance(info, inspect.Metadata):
        rule = (info.extra or {}).get("rule")
        info, inner = _taken_apart(info.type)
        rule = rule or inner
    elif isinstance(info, inspect.UnionType):
        rule = next((rule for _, rule in map(_taken_apart, info.types) if rule is not None), None)
    return info, rule


def _expectation(kind: inspect.Type, rule: Rule | None) -> str:
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return " or ".join(repr(value) for value in kind.values)
        case inspect.IntType() | inspect.FloatType():
            return ("an integer " if isinstance(kind, inspect.IntType) else "a number ") + _interval(kind)
        case inspect.VarTupleType():
            most = f"at most {kind.max_length} " if kind.max_length is not None else ""
            return f"a list of {most}{'strings' if _struct_of_items(kind) is None else 'objects'}"
        case inspect.UnionType() if rule is not None and _part(kind, inspect.NoneType) is not None:
            return f"{rule.expected} or null"
        case inspect.UnionType() if rule is None:
            parts = [_expectation(part, None) for part in kind.types if not isinstance(part, inspect.NoneType)]
            return " or ".join([*parts, "null"])
    return rule.expected if rule is not None else "a string"


def _interval(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f"> {kind.gt} and <= {kind.le}"
    return f">= {kind.ge}" if kind.le is None else f"{kind.ge}..{kind.le}"
