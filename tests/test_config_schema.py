"""Tests of `nitroproxy.config.schema`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import (
    Settings,
    json_schema,
)

ETC = Path(__file__).parent.parent / "etc"


class SchemaTests(SynchronousTestCase):
    """The published JSON Schema."""

    def test_published_one_is_current(self) -> None:
        """The schema in etc/ is what the code makes: `nitroproxy config --schema > etc/nitroproxy.schema.json`."""
        self.assertEqual((ETC / "nitroproxy.schema.json").read_text(encoding="utf-8"), json_schema())

    def test_everything_is_described(self) -> None:
        """Each section and each key has a description, and no section takes unknown keys."""
        definitions = json.loads(json_schema())["$defs"]
        for name, section in definitions.items():
            self.assertTrue(section["description"], name)
            self.assertIs(section["additionalProperties"], False)
            if name != "Settings":
                for key, schema in section["properties"].items():
                    self.assertTrue(schema["description"], f"{name}.{key}")


class SettingsTests(SynchronousTestCase):
    """The structs."""

    def test_frozen(self) -> None:
        """Settings are values: they cannot be changed, and can be compared."""
        settings = Settings()
        self.assertRaises(AttributeError, setattr, settings.host_proxy, "port", 1)
        self.assertEqual(settings, Settings())

    def test_defaults_keep_their_own_rules(self) -> None:
        """The defaults pass the validation that everything else has to pass."""
        plain = msgspec.to_builtins(Settings())
        self.assertEqual(msgspec.convert(plain, Settings), Settings())
