"""Gives a test the stand-in for nitro-cli (`tests/fakes/nitro-cli`) with a state of its own."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "fakes" / "nitro-cli"


class FakeNitroCLI:
    """A nitro-cli in *directory*, which is made.

    :ivar program: what to start: it needs no environment.
    """

    def __init__(self, directory: Path) -> None:
        self.state = directory.absolute() / "state"
        self.state.mkdir(parents=True)
        self.allocator = self.state / "allocator.yaml"
        program = directory.absolute() / "nitro-cli"
        program.write_text(
            f"#!/bin/sh\nexport NITRO_CLI_STATE={shlex.quote(str(self.state))}\n"
            f"export NITRO_CLI_ALLOCATOR={shlex.quote(str(self.allocator))}\n"
            f'exec {shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))} "$@"\n'
        )
        program.chmod(0o755)
        self.program = str(program)

    def behave(self, **behaviour: Any) -> None:
        """Set how it behaves from now on: see the stand-in."""
        (self.state / "behaviour.json").write_text(json.dumps(behaviour))

    @property
    def calls(self) -> list[str]:
        """The arguments of each call so far."""
        path = self.state / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def enclaves(self) -> list[dict[str, Any]]:
        """The enclaves that it has started and not ended."""
        path = self.state / "enclaves.json"
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return found
