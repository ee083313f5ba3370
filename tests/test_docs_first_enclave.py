"""docs/first-enclave.md: its commands exist, and the Chinese page has the same."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.main import build_parser
from nitroproxy.deploy.main import parser

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "first-enclave.md"


def blocks(path: Path) -> list[str]:
    """The blocks of commands of a page."""
    return re.findall(r"(?ms)^```\n(.*?)^```", path.read_text("utf-8"))


class FirstEnclaveTests(SynchronousTestCase):
    """The commands of the page."""

    def setUp(self) -> None:
        text = "".join(blocks(PAGE)).replace("\\\n", "")
        lines = (shlex.split(line, comments=True) for line in text.splitlines())
        self.commands = [[word for word in words if word != "sudo"] for words in lines if words]

    def test_deploy(self) -> None:
        """Every deploy.sh command line is one that it takes."""
        found = [words[1:] for words in self.commands if words[0] == "./deploy.sh"]
        self.assertGreaterEqual(len(found), 5)
        for words in found:
            parser().parse_args(["--artifacts", "x", *words])

    def test_build(self) -> None:
        """Every option of build.sh is in its help."""
        usage = subprocess.run(["bash", ROOT / "scripts/build.sh", "help"], check=True, capture_output=True, text=True)
        found = [words[1:] for words in self.commands if words[0] == "./scripts/build.sh"]
        self.assertGreaterEqual(len(found), 3)
        for verb, *words in found:
            self.assertRegex(usage.stdout, rf"(?m)^  {verb} ")
            for word in words:
                if word.startswith("--"):
                    self.assertRegex(usage.stdout, rf"(?m)^  .*{word}\b")

    def test_nitroproxy(self) -> None:
        """Every command of nitroproxy is one that it takes."""
        found = [words[1:] for words in self.commands if words[0] == "nitroproxy"]
        self.assertGreaterEqual(len(found), 2)
        for words in found:
            with contextlib.redirect_stderr(io.StringIO()):
                build_parser().parse_args(words)

    def test_chinese(self) -> None:
        """The Chinese page has the same commands; only what is said of them differs."""
        theirs = [re.sub(r" +#.*", "", block) for block in blocks(PAGE.with_name("first-enclave.zh-CN.md"))]
        self.assertEqual(theirs, [re.sub(r" +#.*", "", block) for block in blocks(PAGE)])
