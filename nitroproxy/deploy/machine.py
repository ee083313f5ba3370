"""The instance: its files below a root, and its programs."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Seconds that a program may take: systemctl waits for an enclave to boot.
_LONGEST: Final = 300.0


class CommandFailed(Exception):
    """A program ended with another status than 0, or could not be started; the message has its last words."""


class Machine:
    """The machine to deploy to.

    :param root: the directory to take for / .
    :param environ: the environment of the programs; PATH in it says where they are.
    :ivar architecture: as ``uname -m`` says it.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        self.environ = dict(environ)
        self.architecture = platform.machine()

    def path(self, absolute: str | Path) -> Path:
        """Where *absolute* is."""
        return self.root / str(absolute).lstrip("/")

    def read(self, absolute: str) -> str | None:
        """The text of a small file; None when it is not there or cannot be read."""
        try:
            return self.path(absolute).read_text("utf-8", "replace")
        except OSError:
            return None

    def has(self, program: str) -> bool:
        """Whether *program* is installed."""
        return shutil.which(program, path=self.environ.get("PATH")) is not None

    def run(self, *command: str | Path) -> str:
        """Run a program; returns what it printed.

        :raises CommandFailed: when it fails.
        """
        words = [str(word) for word in command]
        program = shutil.which(words[0], path=self.environ.get("PATH"))
        if program is None:
            raise CommandFailed(f"there is no {words[0]} here")
        try:
            done = subprocess.run(  # noqa: S603  # no shell; the words are ours
                [program, *words[1:]],
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=self.environ,
                timeout=_LONGEST,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{' '.join(words)}: {error}") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-500:]
            raise CommandFailed(f"{' '.join(words)} failed with status {done.returncode}{': ' if said else ''}{said}")
        return done.stdout

    def succeeds(self, *command: str | Path) -> bool:
        """Whether a program ends with status 0."""
        try:
            self.run(*command)
        except CommandFailed:
            return False
        return True
