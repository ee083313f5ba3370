"""Tests of `nitroproxy.commands.attest`."""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.document import MAX_DOCUMENT
from nitroproxy.commands import attest
from tests.attestation.pki import document, pki
from tests.attestation.real import Real, load


class VerifyTests(SynchronousTestCase):
    """`nitroproxy attest verify`, with a real document that is years old."""

    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        documents = {real.name: real for real in load()}
        self.real = documents["20230118-evervault-061b9b75"]
        self.of_debug = documents["20240124-anjuna-security-8d6106b4"]
        self.file = self.written(self.real.data)
        self.policy = self.policy_for(self.real)

    def written(self, data: bytes) -> str:
        """A file of these bytes."""
        path: str = self.mktemp()
        Path(path).write_bytes(data)
        return path

    def policy_for(self, real: Real, **more: Any) -> str:
        """A file with a policy that accepts *real*."""
        pcrs = {str(index): value.hex() for index, value in real.pcrs.items()}
        return self.written(json.dumps({"accept": [{"name": "its own", "pcrs": pcrs}], **more}).encode())

    def status(self, *argv: str) -> int:
        """The exit status of ``attest verify`` with these arguments."""
        parser = argparse.ArgumentParser(prog="nitroproxy")
        attest.add_parser(parser.add_subparsers())
        args = parser.parse_args(["attest", "verify", *argv])
        status: int = args.run(args)
        return status

    def usage(self, *argv: str) -> str:
        """What the parser writes when it ends the program with status 2."""
        error = self.assertRaises(SystemExit, self.status, *argv)
        self.assertEqual(error.code, 2)
        return self.err.getvalue()

    def test_verified(self) -> None:
        """A document that is verified gives 0, and what it proves."""
        self.assertEqual(self.status(self.file, "--policy", self.policy, "--archived"), 0)
        out = self.out.getvalue()
        for line in (
            "verified: the document matches the policy's entry 'its own'",
            "ARCHIVED: its age was not checked; it proves nothing about the present",
            f"module_id   {self.real.record['module_id']}",
            f"PCR0        {self.real.pcrs[0].hex()}",
            f"PCR8        {self.real.pcrs[8].hex()}",
            f"nonce       {self.real.record['nonce']}",
        ):
            self.assertIn(f"{line}\n", f"{out}\n")
        self.assertNotIn("DEBUG", out)
        self.assertNotIn("PCR15", out, "zeros are not shown")
        self.assertEqual(self.err.getvalue(), "")

    def test_json(self) -> None:
        """As JSON it gives everything, bytes in hexadecimal."""
        self.assertEqual(self.status(self.file, "--policy", self.policy, "--archived", "--json"), 0)
        found, record = json.loads(self.out.getvalue()), self.real.record
        for key in ("module_id", "pcrs", "public_key", "user_data", "nonce"):
            self.assertEqual(found[key], record[key], key)
        self.assertEqual((found["verified"], found["archived"], found["debug"]), (True, True, False))
        self.assertEqual((found["root"], found["entry"]), (record["root_sha256"], "its own"))
        self.assertEqual(datetime.fromisoformat(found["timestamp"]), self.real.signed)

    def test_too_old(self) -> None:
        """Without --archived an old document is refused: 1, and the rule."""
        self.assertEqual(self.status(self.file, "--policy", self.policy), 1)
        self.assertTrue(self.err.getvalue().startswith("nitroproxy: refused: age: it was signed at 2023-01-18"))
        self.assertEqual(self.out.getvalue(), "")

    def test_refused_as_json(self) -> None:
        """A refusal as JSON has the rule, the detail and that it is not verified."""
        self.assertEqual(self.status(self.file, "--policy", self.policy, "--json"), 1)
        found = json.loads(self.out.getvalue())
        self.assertEqual((found["verified"], found["rule"]), (False, "age"))
        self.assertIn("signed at", found["detail"])

    def test_age(self) -> None:
        """The document's age is judged by this machine's clock, and by the policy's max_age."""
        arguments = (self.file, "--policy", self.policy_for(self.real, max_age=600))
        for minutes, status in ((0, 0), (9, 0), (11, 1), (-2, 1)):
            moment = self.real.signed + timedelta(minutes=minutes)
            self.patch(attest, "datetime", SimpleNamespace(now=moment.astimezone))
            self.assertEqual(self.status(*arguments), status, minutes)
        self.assertNotIn("ARCHIVED", self.out.getvalue())

    def test_root(self) -> None:
        """A document of another PKI is refused."""
        self.assertEqual(self.status(self.written(document(pki())), "--policy", self.policy), 1)
        self.assertIn("refused: root: ", self.err.getvalue())

    def test_nonce(self) -> None:
        """The nonce that is asked for must be in the document."""
        nonce = self.real.record["nonce"]
        arguments = (self.file, "--policy", self.policy, "--archived", "--nonce")
        self.assertEqual(self.status(*arguments, nonce), 0)
        self.assertEqual(self.status(*arguments, nonce.upper()), 0)
        self.assertEqual(self.status(*arguments, nonce[2:]), 1)
        self.assertIn("refused: nonce: ", self.err.getvalue())

    def test_debug(self) -> None:
        """A debug enclave is refused, or if the policy allows it, accepted with a warning."""
        arguments = (self.written(self.of_debug.data), "--archived", "--policy")
        self.assertEqual(self.status(*arguments, self.policy), 1)
        self.assertIn("refused: debug: ", self.err.getvalue())
        self.assertEqual(self.status(*arguments, self.policy_for(self.of_debug, allow_debug=True)), 0)
        self.assertIn("DEBUG: the enclave runs in debug mode; its image is not proven\n", self.out.getvalue())

    def test_forms(self) -> None:
        """A document is taken raw and in base64, with line ends or without, from a file or standard input."""
        once = base64.b64encode(self.real.data)
        lines = base64.encodebytes(self.real.data).replace(b"\n", b"\r\n")
        arguments = ("--policy", self.policy, "--archived")
        for data in (once, lines, b"\n" + once + b"\n\n", self.real.data):
            self.assertEqual(self.status(self.written(data), *arguments), 0)
            self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            self.assertEqual(self.status("-", *arguments), 0)

    def test_no_document(self) -> None:
        """Input that is not a document is refused, and reading stops soon after the size limit."""
        for data in (b"", b"\n", b"AAAA", b"AAA", b"\x84", once_less(self.real.data), b"{}"):
            self.assertEqual(self.status(self.written(data), "--policy", self.policy), 1, data)
            self.assertRegex(self.err.getvalue(), r"refused: (size|cbor|envelope): [^\n]+\n\Z")
        endless = io.BytesIO(b"\x84" * 10**6)
        self.patch(sys, "stdin", io.TextIOWrapper(endless))
        self.assertEqual(self.status("-", "--policy", self.policy), 1)
        self.assertIn("refused: size: ", self.err.getvalue())
        self.assertLess(endless.tell(), 4 * MAX_DOCUMENT)

    def test_unreadable(self) -> None:
        """A file that cannot be read gives 2, and its name."""
        for path, reason in ((f"{self.file}-", "No such file or directory"), ("/", "Is a directory")):
            self.assertEqual(self.status(path, "--policy", self.policy), 2)
            self.assertIn(f"nitroproxy: {path}: cannot be read: {reason}\n", self.err.getvalue())

    def test_bad_policy(self) -> None:
        """A policy that cannot be used gives 2 and everything that is wrong with it, one line each."""
        path = self.written(b'{"accept": [], "max_age": "long"}')
        self.assertEqual(self.status(self.file, "--policy", path), 2)
        lines = self.err.getvalue().splitlines()
        self.assertEqual(
            [line.split(": ")[:2] for line in lines], [["nitroproxy", "max_age"], ["nitroproxy", "accept"]]
        )
        self.assertEqual(self.status(self.file, "--policy", f"{path}-"), 2)

    def test_usage(self) -> None:
        """A command line that cannot be understood ends with 2 and says why."""
        self.assertIn("--policy", self.usage(self.file))
        for nonce in ("", "xyz", "abc", "00" * 513, "0x00"):
            self.assertIn("expected 1 to 512 bytes", self.usage(self.file, "--policy", self.policy, "--nonce", nonce))
        # An abbreviation would change its meaning when an option is added.
        self.assertIn("unrecognized arguments: --arch", self.usage(self.file, "--policy", self.policy, "--arch"))

    def test_command_is_needed(self) -> None:
        """``attest`` alone is not a command."""
        parser = argparse.ArgumentParser(prog="nitroproxy")
        attest.add_parser(parser.add_subparsers())
        self.assertEqual(self.assertRaises(SystemExit, parser.parse_args, ["attest"]).code, 2)
        self.assertIn("COMMAND", self.err.getvalue())


def once_less(data: bytes) -> bytes:
    """*data* without its last byte."""
    return data[:-1]
