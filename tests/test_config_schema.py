"""Tests of `nitroproxy.config.schema`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import Credentials, Settings, json_schema
from nitroproxy.config.values import violations
from tests.configs import wanted

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


class CredentialsTests(SynchronousTestCase):
    """The keys of the section credentials."""

    def refused(self, name: str, value: object) -> bool:
        """Whether *value* is."""
        return bool(list(violations(value, wanted(Credentials, name))))

    def test_role(self) -> None:
        """The name of a role as IAM allows it, which becomes part of a path."""
        for right in (None, "r", "my-role", "a_b+c=d,e.f@g", "R" * 64):
            self.assertFalse(self.refused("role", right), right)
        wrong: tuple[object, ...] = (
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\r\n",
            "ä",
            "R" * 65,
            "?x",
            "%2e",
            1,
            "arn:aws:iam::1:role/r",
        )
        for value in wrong:
            self.assertTrue(self.refused("role", value), value)
        [problem] = violations("arn:aws:iam::1:role/r", wanted(Credentials, "role"))
        self.assertIn("an ARN or an instance profile is not it", problem)

    def test_metadata_url(self) -> None:
        """http and an IP address, perhaps with a port; nothing that a name, a path or a user could be hidden in."""
        for right in ("http://169.254.169.254", "http://[fd00:ec2::254]", "http://127.0.0.1:1338"):
            self.assertFalse(self.refused("metadata_url", right), right)
        wrong: tuple[object, ...] = (
            *("https://169.254.169.254", "http://", "169.254.169.254", "http://metadata.example", "http://1.2.3.4/"),
            *("http://1.2.3.4/x", "http://u@1.2.3.4", "http://1.2.3.4:", "http://1.2.3.4:0", "http://1.2.3.4:70000"),
            *("http://1.2.3.4?x", "http://1.2.3.4#x", "http://[1.2.3.4]", "http://[::1", "HTTP://1.2.3.4", None, 1),
        )
        for value in wrong:
            self.assertTrue(self.refused("metadata_url", value), value)

    def test_token_sha256(self) -> None:
        """64 digits, as sha256sum prints them."""
        self.assertFalse(self.refused("token_sha256", "0123456789abcdef" * 4))
        for value in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "٠" * 64, 1):
            self.assertTrue(self.refused("token_sha256", value), value)
