"""Tests of `nitroproxy.commands.main`: the tree, and what holds for every subcommand."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy import __version__
from nitroproxy.commands import status
from nitroproxy.commands.main import COMMANDS, build_parser, main
from nitroproxy.config import load
from tests.commandlines import parsers

#: Runs the command in a process of its own.
COMMAND = [sys.executable, "-c", "import sys; from nitroproxy.commands.main import main; sys.exit(main())"]


class MainTests(SynchronousTestCase):
    """The `nitroproxy` command."""

    def setUp(self) -> None:
        """The streams are caught; there is no configuration on this machine."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {})
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def exit_status(self, *argv: str) -> object:
        """The status with which parsing *argv* ends the command."""
        return self.assertRaises(SystemExit, main, argv).code

    def test_version(self) -> None:
        """--version prints nitroproxy's version."""
        self.assertEqual(self.exit_status("--version"), 0)
        self.assertEqual(self.out.getvalue(), f"nitroproxy {__version__}\n")

    def test_help(self) -> None:
        """--help lists every command."""
        self.assertEqual(self.exit_status("--help"), 0)
        for name in ("status", "logs", "policy", "config", "demo", "install-units", "run-enclave", "attest"):
            self.assertRegex(self.out.getvalue(), rf"(?m)^ +{name}\s+[a-z]")

    def test_every_option_has_help(self) -> None:
        """Every option and argument of every parser has a help text, and every parser can be formatted."""
        found = list(parsers(build_parser()))
        self.assertGreater(len(found), len(COMMANDS))
        for parser in found:
            self.assertIn(parser.prog, parser.format_help())
            lacking = [
                action.dest
                for action in parser._actions
                if not action.help and not isinstance(action, argparse._SubParsersAction)
            ]
            self.assertEqual((parser.prog, lacking), (parser.prog, []))

    def test_every_command_runs(self) -> None:
        """Every parser without subcommands says what to run."""
        for parser in parsers(build_parser()):
            if not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
                self.assertTrue(callable(parser.get_default("run")), parser.prog)

    def test_bad_usage(self) -> None:
        """No command, one that does not exist or an unknown option is status 2, with the usage on standard error."""
        for argv in (
            *([], ["nonsense"], ["--nonsense"], ["config", "--nonsense"], ["config", "nonsense"]),
            *(["policy"], ["policy", "check"], ["policy", "nonsense"], ["config", "--schema", "--check-config"]),
            *(["run-enclave"], ["logs", "--lines", "x"], ["logs", "--unit", "x"], ["status", "--check-config"]),
            *(["status", "--interval", interval] for interval in ("-1", "0", "nan", "inf", "x", "86401")),
        ):
            self.err.truncate(0)
            self.err.seek(0)
            self.assertEqual(self.exit_status(*argv), 2, argv)
            self.assertTrue(self.err.getvalue().startswith("usage: nitroproxy"), self.err.getvalue())
            self.assertRegex(self.err.getvalue(), r"\nnitroproxy.*: error: ")
        self.assertEqual(self.out.getvalue(), "")

    def test_interrupted(self) -> None:
        """Ctrl-C ends a command with 130 and without a traceback."""

        def interrupt(arguments: argparse.Namespace) -> int:
            raise KeyboardInterrupt

        self.patch(status, "run", interrupt)
        self.assertEqual(main(["status"]), 130)

    def test_closed_pipe(self) -> None:
        """A reader that closes the pipe early, as head does, is no error to report."""
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*COMMAND, "config"], check=False, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (1, b""))

    def test_full_disk(self) -> None:
        """Output that cannot be written for want of room is reported in one line."""
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, "config"], check=False, stdout=full, stderr=subprocess.PIPE)
        expected = b"nitroproxy: the output cannot be written: No space left on device\n"
        self.assertEqual((done.returncode, done.stderr), (1, expected))

    def test_no_output(self) -> None:
        """A process that was started with standard output closed does its work."""
        done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "config"], check=False, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_light(self) -> None:
        """The help and the completion need no reactor, TLS or HTTP library."""
        code = "import sys; from nitroproxy.commands.main import build_parser; build_parser(); print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        self.assertEqual({"twisted", "OpenSSL", "treq", "httptools"} & set(loaded), set())
