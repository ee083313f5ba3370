"""Tests of `nitroproxy config`."""

from __future__ import annotations

import os
import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.main import main
from nitroproxy.config import load
from nitroproxy.config.schema import json_schema


class ConfigTests(SynchronousTestCase):
    """What each option does."""

    def setUp(self) -> None:
        """The streams are caught; there is no configuration on this machine."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {})
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def test_print(self) -> None:
        """The configuration is printed, with or without --print-config."""
        self.assertEqual(main(["config", "--set", "enclave.cid=20"]), 0)
        once = self.out.getvalue()
        self.assertRegex(once, r"(?m)^enclave\.cid +20 +option --set$")
        self.assertEqual(main(["config", "--print-config", "--set", "enclave.cid=20"]), 0)
        self.assertEqual(self.out.getvalue(), once * 2)

    def test_check(self) -> None:
        """--check-config checks only, with the trust roots; what is wrong is one line and status 1."""
        self.assertEqual(main(["config", "--check-config"]), 0)
        self.assertEqual(self.out.getvalue(), "configuration is valid: defaults, without a file\n")
        bad = self.assertRaises(SystemExit, main, ["config", "--check-config", "--set", "enclave.cid=x"])
        self.assertEqual((bad.code, len(self.err.getvalue().splitlines())), (1, 1))
        bad = self.assertRaises(SystemExit, main, ["config", "--check-config", "--set", "tls.ca_file=/no/such/file"])
        self.assertEqual(bad.code, 1)
        self.assertIn("tls.ca_file: /no/such/file: No such file", self.err.getvalue())

    def test_schema(self) -> None:
        """--schema prints the JSON Schema, also where the configuration is bad."""
        self.assertEqual(main(["config", "--schema", "--set", "enclave.cid=x"]), 0)
        self.assertEqual(self.out.getvalue(), json_schema())
