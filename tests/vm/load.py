"""Trials of `tests.load` in a guest, over vsock on its one kernel; each becomes a check."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque

from tests.vm.checks import Outcome, Result, report


def run_load(name: str, *arguments: str) -> None:
    """Run ``python -m tests.load`` with *arguments* and *name*; its figures are the detail of the check *name*."""
    began = time.monotonic()
    told: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.load", *arguments, name],
        env={**os.environ, "NITROPROXY_TEST_VSOCK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            told.append(line.strip())
    outcome: Outcome = "failed" if running.returncode else "passed"
    report(Result(name, outcome, time.monotonic() - began, "; ".join(told)))
