"""Tests of `nitroproxy.commands.arguments`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.arguments import (
    Parser,
    add_configuration_options,
    complain,
    count,
    load_configuration,
    seconds,
)
from nitroproxy.config import load


class ArgumentTests(SynchronousTestCase):
    """The types, and the options for the configuration."""

    def setUp(self) -> None:
        """No configuration of this machine's is read."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {"ENCLAVE_CID": "20"})
        self.err = io.StringIO()
        self.patch(sys, "stderr", self.err)

    def test_seconds(self) -> None:
        """Seconds are a finite number above 0, up to a limit; the message names both."""
        self.assertEqual(seconds()("0.5"), 0.5)
        self.assertEqual(seconds(10)("10"), 10)
        for text in ("0", "-1", "nan", "inf", "x", ""):
            error = self.assertRaises(argparse.ArgumentTypeError, seconds(), text)
            self.assertIn(f"expected seconds above 0, got {text!r}", str(error))
        self.assertIn("at most 10", str(self.assertRaises(argparse.ArgumentTypeError, seconds(10), "11")))

    def test_count(self) -> None:
        """A count is a whole number of 1 or more."""
        self.assertEqual(count("200"), 200)
        for text in ("0", "-1", "1.5", "x", "", "²"):
            self.assertRaises(argparse.ArgumentTypeError, count, text)

    def test_configuration(self) -> None:
        """--set goes over the environment; what is wrong is listed on standard error, with status 1."""
        parser = Parser()
        add_configuration_options(parser)
        found = load_configuration(parser.parse_args(["--set", "enclave.port=5005"]))
        self.assertEqual((found.settings.enclave.cid, found.settings.enclave.port), (20, 5005))
        bad = parser.parse_args(["--set", "enclave.port=x", "--set", "egress.port=x"])
        self.assertEqual(self.assertRaises(SystemExit, load_configuration, bad).code, 1)
        self.assertEqual(
            [line.split(":")[0] for line in self.err.getvalue().splitlines()], ["enclave.port", "egress.port"]
        )

    def test_no_abbreviations(self) -> None:
        """An abbreviated option is refused, in subcommands too."""
        parser = Parser()
        sub = parser.add_subparsers().add_parser("sub")
        sub.add_argument("--schema", action="store_true")
        with contextlib.redirect_stderr(self.err):
            self.assertEqual(self.assertRaises(SystemExit, parser.parse_args, ["sub", "--sch"]).code, 2)

    def test_complain(self) -> None:
        """A complaint is one line on standard error, and status 1."""
        self.assertEqual(complain("no such thing"), 1)
        self.assertEqual(self.err.getvalue(), "nitroproxy: no such thing\n")
