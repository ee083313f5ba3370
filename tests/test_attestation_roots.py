"""Tests of `nitroproxy.attestation.roots`: what is trusted, and that nothing but code says so."""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import nitroproxy
from nitroproxy.attestation import AWS_ROOTS, policy_file
from nitroproxy.attestation.document import read_document
from nitroproxy.commands import attest
from tests.attestation.real import load

PACKAGE = Path(nitroproxy.__file__).parent
#: What an option, key or variable that sets trust anchors of documents would be called.
WORDS = ("root", "anchor", "trust", "insecure", "skip", "fingerprint")


class RootTests(SynchronousTestCase):
    """The root itself."""

    def test_fingerprint(self) -> None:
        """It is the certificate that begins the chain of every stored document of AWS's NSMs."""
        begins = {hashlib.sha256(read_document(real.data).cabundle[0]).digest() for real in load() if real.genuine}
        self.assertEqual(begins, AWS_ROOTS)

    def test_constant(self) -> None:
        """The set cannot be added to."""
        self.assertIsInstance(AWS_ROOTS, frozenset)


class NoSettingTests(SynchronousTestCase):
    """An enclave with an NSM of its own making is refused, whatever is configured around the verifier."""

    def test_command_line(self) -> None:
        """No option of the command line, at any depth, names a root."""
        parser = argparse.ArgumentParser()
        attest.add_parser(parser.add_subparsers())
        options = set(_options(parser))
        self.assertLessEqual({"--policy", "--nonce", "--archived", "--json", "file"}, options)
        self.assertEqual([option for option in options if any(word in option.lower() for word in WORDS)], [])

    def test_policy(self) -> None:
        """No key of a policy does."""
        keys = (*policy_file._POLICY_KEYS, *policy_file._ENTRY_KEYS)
        self.assertEqual([key for key in keys if any(word in key.lower() for word in WORDS)], [])

    def test_configuration(self) -> None:
        """No key of the daemons' configuration does, and so no environment variable: they are named after the keys."""
        schema = json.loads((PACKAGE.parent / "etc" / "nitroproxy.schema.json").read_text("utf-8"))
        keys = set(_properties(schema))
        self.assertIn("verify_certificates", keys)
        self.assertEqual([key for key in keys if any(word in key.lower() for word in WORDS)], [])

    def test_code(self) -> None:
        """No code of the package passes roots to the verifier, and the verifier reads neither environment nor files."""
        passing, reading = [], []
        for path in sorted(PACKAGE.rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            name = path.relative_to(PACKAGE).as_posix()
            passing += [name for keyword in _keywords(tree) if keyword == "roots"]
            if name.startswith("attestation/"):
                reading += [f"{name}: {used}" for used in _names(tree) if used in ("os", "environ", "getenv", "open")]
        self.assertEqual(passing, [])
        self.assertEqual(reading, [])


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings or (action.dest,)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options(below)


def _properties(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)


def _keywords(tree: ast.AST) -> Iterator[str | None]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.arg for keyword in node.keywords)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names)
