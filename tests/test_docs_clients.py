"""docs/clients.md shows exactly the programs that `scripts/dev.sh clients` runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

ROOT: Final = Path(__file__).parent.parent
CLIENTS: Final = ROOT / "tests" / "clients"
RUNNER: Final = CLIENTS / "run.sh"
DOCUMENT: Final = ROOT / "docs" / "clients.md"
#: A line with only a link to the file, an empty line, and the file in a fence.
SNIPPET: Final = re.compile(r"^\[(\S+)\]\(\.\./tests/clients/\1\)\n\n```[a-z]+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_EXAMPLES: Final = {
    "echo.py",
    "package-lock.json",
    "package.json",
    "requirements.in",
    "requirements.lock",
    "run.sh",
}


def examples() -> set[str]:
    """The names of the example programs' files."""
    return {path.name for path in CLIENTS.iterdir() if path.is_file()} - NOT_EXAMPLES


class ClientsDocumentTests(SynchronousTestCase):
    """The document compared with the files."""

    def test_snippets(self) -> None:
        """Every example is in the document once, character for character, and the document shows no other as one."""
        shown = SNIPPET.findall(DOCUMENT.read_text())
        self.assertEqual(sorted(name for name, _ in shown), sorted(examples()))
        for name, text in shown:
            self.assertEqual(text, (CLIENTS / name).read_text(), name)

    def test_every_example_is_run(self) -> None:
        """The runner's table names every example except the program that java.sh starts."""
        table = RUNNER.read_text().partition("clients='")[2].partition("'")[0]
        files = {line.split()[1] for line in table.split("\n") if line}
        self.assertEqual(files | {"JavaHttpClient.java"}, examples())
        self.assertIn("/JavaHttpClient.java", (CLIENTS / "java.sh").read_text())

    def test_unknown_client(self) -> None:
        """An unknown client is refused with status 2, before anything is started; the message lists the known ones."""
        done = subprocess.run([str(RUNNER), "nonsense"], check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("there is no client 'nonsense'; there are: curl curl-path ", done.stderr)
