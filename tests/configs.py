"""What tests ask of the configuration's types."""

from __future__ import annotations

import msgspec


def wanted(section: type[msgspec.Struct], name: str) -> object:
    """The type of one key."""
    return next(field.type for field in msgspec.structs.fields(section) if field.name == name)
