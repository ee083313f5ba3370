"""scripts/manual.py: a page for each command with every option, and a completion that bash understands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.commands.main import COMMANDS, build_parser

ROOT = Path(__file__).parent.parent


class ManualTests(SynchronousTestCase):
    """What the script writes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.make(self.directory)
        self.pages = {path.name: path.read_text() for path in (self.directory / "man1").iterdir()}

    def make(self, directory: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1"}
        subprocess.run([sys.executable, str(ROOT / "scripts" / "manual.py"), str(directory)], check=True, env=environ)

    def test_pages(self) -> None:
        """Each command has a page, which the main page names."""
        self.assertEqual(len(self.pages), len(COMMANDS) + 1)
        for name, text in self.pages.items():
            title = name.removesuffix(".1")
            self.assertTrue(text.startswith(f'.TH {title.upper()} 1 "1970-01-01"'), name)
            if title != "nitroproxy":
                self.assertIn(title.replace("-", "\\-"), self.pages["nitroproxy.1"])

    def test_options(self) -> None:
        """Every option that the help has is in its page, and nothing in a page is formatted by accident."""
        for action in build_parser()._actions:
            for name, parser in (action.choices or {}).items() if isinstance(action.choices, dict) else ():
                text = self.pages[f"nitroproxy-{name}.1"]
                for option in (one for each in parser._actions for one in each.option_strings):
                    self.assertIn(f"\\fB{option.replace('-', chr(92) + '-')}\\fR", text)
        for text in self.pages.values():
            self.assertTrue(
                all(line.startswith((".TH", ".SH", ".TP", ".PP")) for line in text.splitlines() if line[:1] == ".")
            )

    def test_reproducible(self) -> None:
        """The same bytes every time, whatever the terminal."""
        again = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {**os.environ, "COLUMNS": "40"})
        self.make(again)
        for path in self.directory.rglob("*"):
            if path.is_file():
                self.assertEqual(path.read_bytes(), (again / path.relative_to(self.directory)).read_bytes())

    def test_roff(self) -> None:
        """groff has nothing to warn of."""
        if shutil.which("groff") is None:
            raise SkipTest("there is no groff here")
        for name in self.pages:
            command = ["groff", "-man", "-ww", "-Tutf8", "-z", str(self.directory / "man1" / name)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)

    def complete(self, *words: str) -> list[str]:
        code = (
            f"source {self.directory}/bash-completion/nitroproxy\n"
            'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nitroproxy\n'
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", code, "bash", *words], check=True, capture_output=True, text=True, cwd=ROOT
        )
        return [word for word in done.stdout.split("\n") if word]

    def test_completion(self) -> None:
        """Commands, those below them, options, choices and files."""
        self.assertEqual(self.complete("nitroproxy", "stat"), ["status"])
        self.assertEqual(self.complete("nitroproxy", "policy", ""), ["check", "-h", "--help"])
        self.assertEqual(self.complete("nitroproxy", "image", "build", "--ar"), ["--arch"])
        self.assertEqual(self.complete("nitroproxy", "image", "build", "--arch", ""), ["x86_64", "aarch64"])
        self.assertEqual(self.complete("nitroproxy", "run-enclave", "--eif", "LICEN"), ["LICENSE"])
        self.assertEqual(self.complete("nitroproxy", "image", "describe", "LICEN"), ["LICENSE"])
