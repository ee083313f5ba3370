"""Tests of `nitroproxy logs`, with a journalctl played by a script."""

from __future__ import annotations

import os
import re
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.main import main

#: Notes its arguments, one call a line; prints the file that is named like the first unit it is asked for, if any.
SCRIPT = """#!/bin/sh
cd "$(dirname "$0")"
printf '%s\\t' "$@" >> calls; echo >> calls
for word; do case $word in --unit=*) cat "${word#--unit=}" 2>/dev/null; exit 0 ;; esac; done
"""


class LogsTests(SynchronousTestCase):
    """What journalctl is asked for, and what is done with its output."""

    def setUp(self) -> None:
        """journalctl is the script; the host daemon has logged a line."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "journalctl").write_text(SCRIPT)
        (self.directory / "journalctl").chmod(0o755)
        self.log("nitroproxy-host", "[enclave 16] one")
        self.patch(os, "environ", {**os.environ, "PATH": f"{self.directory}:{os.environ['PATH']}"})
        self.err = StringIO()
        self.patch(sys, "stderr", self.err)

    def log(self, unit: str, line: str) -> None:
        (self.directory / unit).write_text(f"{line}\n")

    def logs(self, *argv: str, status: int = 0) -> str:
        """What ``logs`` with *argv* prints."""
        raw = BytesIO()
        self.patch(sys, "stdout", TextIOWrapper(raw))
        self.assertEqual(main(["logs", *argv]), status)
        return raw.getvalue().decode()

    def command(self) -> list[str]:
        """The words of the last call."""
        return (self.directory / "calls").read_text().splitlines()[-1].split("\t")[:-1]

    def test_units(self) -> None:
        """On the host its log, which has the enclave's lines, each once; elsewhere the enclave daemon's own."""
        self.assertEqual(self.logs(), "[enclave 16] one\n")
        units = [word for word in self.command() if word.startswith("--unit")]
        self.assertEqual(units, ["--unit=nitroproxy-host", "--unit=nitroproxy-eif"])
        (self.directory / "nitroproxy-host").unlink()
        self.log("nitroproxy-enclave", "two")
        self.assertEqual(self.logs(), "two\n")
        self.log("nitroproxy-eif", "three")
        self.assertEqual(self.logs("--unit", "eif"), "three\n")

    def test_lines(self) -> None:
        """The last lines, 200 unless asked otherwise."""
        self.logs()
        self.assertIn("--lines=200", self.command())
        self.logs("-n", "5")
        self.assertIn("--lines=5", self.command())

    def test_request(self) -> None:
        """The lines of one request and of no other, oldest first, as --lines would not give them."""
        self.logs("--request-id", "a.c-5")
        command = self.command()
        self.assertFalse([word for word in command if word.startswith("--lines")])
        self.assertIn("--case-sensitive=true", command)
        [pattern] = [word.removeprefix("--grep=") for word in command if word.startswith("--grep=")]
        for line in ("x id=a.c-5", "x id=a.c-5 opened_by=b", "x opened_by=a.c-5 y", '{"request_id":"a.c-5","x":1}'):
            self.assertRegex(line, pattern)
        for line in ("x id=a.c-55", "x id=ba.c-5", "x id=a.c-5-1", "x id=abc-5", "x id=A.C-5", "x id=0.a.c-5"):
            self.assertIsNone(re.search(pattern, line))

    def test_no_match(self) -> None:
        """A request without a line is an error that names the request and what to look at."""
        self.log("nitroproxy-host", "")
        (self.directory / "nitroproxy-host").write_bytes(b"")
        self.assertEqual(self.logs("-r", "a-1", status=1), "")
        self.assertIn("no line in the journal is about request a-1: check the id", self.err.getvalue())
        self.assertEqual(self.logs(status=1), "")
        self.assertIn("no line of these units", self.err.getvalue())

    def test_follow(self) -> None:
        """--follow becomes journalctl."""
        became: list[list[str]] = []
        self.patch(os, "execvp", lambda file, command: became.append(command))
        self.logs("-f")
        self.assertEqual(became[0][0], "journalctl")
        self.assertIn("--follow", became[0])

    def test_no_journal(self) -> None:
        """Without journalctl the message says where the log is instead."""
        (self.directory / "journalctl").unlink()
        self.patch(os, "environ", {"PATH": str(self.directory)})
        self.assertEqual(self.logs(status=1), "")
        self.assertIn("without systemd the log is where twistd writes it", self.err.getvalue())

    def test_help(self) -> None:
        """The help says how to turn on debug logs."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        self.assertEqual(self.assertRaises(SystemExit, main, ["logs", "--help"]).code, 0)
        for words in ("LOG_LEVEL=DEBUG", '"level": "DEBUG"', "systemctl reload nitroproxy-host"):
            self.assertIn(words, out.getvalue())
