"""The stage ``soak``: load for ten minutes over vsock on one kernel, with faults on the way to the destination.

Not one of those that run without being named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.vm.checks import Outcome, Result, report


def run_stage() -> None:
    """Run the soak of tests.load; its figures are the check's detail."""
    subprocess.run(["modprobe", "vsock_loopback"], check=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.load", "--seconds", "600", "soak"],
        check=False,
        env={**os.environ, "NITROPROXY_TEST_VSOCK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, flush=True)
    outcome: Outcome = "failed" if done.returncode else "passed"
    report(Result("soak", outcome, time.monotonic() - began, done.stdout[-2000:]))
