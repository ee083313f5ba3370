"""The stage ``soak``: load over vsock on one kernel, with faults on the way to the destination, for as long as asked.

Not one of those that run without being named.
"""

from __future__ import annotations

import os
import subprocess

from tests.vm.load import run_load


def run_stage() -> None:
    """Run the soak of tests.load for VM_SECONDS."""
    subprocess.run(["modprobe", "vsock_loopback"], check=True)
    run_load("soak", "--seconds", os.environ["VM_SECONDS"])
