"""The stage ``soak``: load over vsock on one kernel, with faults on the way to the destination, for as long as asked.

Not one of those that run without being named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque

from tests.vm.checks import Outcome, Result, report


def run_stage() -> None:
    """Run the soak of tests.load for VM_SECONDS; its figures are the check's detail."""
    subprocess.run(["modprobe", "vsock_loopback"], check=True)
    began = time.monotonic()
    told: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.load", "--seconds", os.environ["VM_SECONDS"], "soak"],
        env={**os.environ, "NITROPROXY_TEST_VSOCK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as soaking:
        assert soaking.stdout is not None
        for line in soaking.stdout:
            print(line, end="", flush=True)
            told.append(line.strip())
    outcome: Outcome = "failed" if soaking.returncode else "passed"
    report(Result("soak", outcome, time.monotonic() - began, "; ".join(told)))
