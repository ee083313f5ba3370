"""The stage ``loopback``: the trial tests of vsock on the AF_VSOCK of one kernel, whose cid 1 is the machine itself.

Each test is a check of its own. They run on the daemons' reactor; Twisted's conformance tests bring others besides.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Final

from twisted.trial.reporter import Reporter
from twisted.trial.runner import TestLoader, TrialRunner

from nitroproxy.daemon.reactor import install
from tests.vm.checks import Outcome, Result, report

_MODULES: Final = (
    "tests.test_vsock_kernel",
    "tests.test_vsock_transport",
    "tests.test_vsock_endpoints",
    "tests.test_vsock_real",
)


class CheckReporter(Reporter):
    """Reports each test as a check."""

    def startTest(self, test: Any) -> None:
        """Note when it started."""
        super().startTest(test)
        self._started = time.monotonic()
        self._told: set[str] = set()

    def addSuccess(self, test: Any) -> None:
        """It passed."""
        super().addSuccess(test)
        self._tell(test, "passed", test.shortDescription() or "")

    def addFailure(self, test: Any, fail: Any) -> None:
        """What it saw is wrong."""
        super().addFailure(test, fail)
        self._tell(test, "failed", str(fail))

    def addError(self, test: Any, error: Any) -> None:
        """It broke."""
        super().addError(test, error)
        self._tell(test, "failed", str(error))

    def addSkip(self, test: Any, reason: Any) -> None:
        """It does not apply here."""
        super().addSkip(test, reason)
        self._tell(test, "skipped", str(reason))

    def _tell(self, test: Any, outcome: Outcome, detail: str) -> None:
        name = test.id().removeprefix("tests.")
        if name not in self._told:
            self._told.add(name)
            report(Result(name, outcome, time.monotonic() - self._started, detail))


def run_stage() -> None:
    """Run the tests."""
    install()
    subprocess.run(["modprobe", "vsock_loopback"], check=True)
    os.environ["NITROPROXY_TEST_VSOCK"] = "1"
    suite = TestLoader().loadByNames(list(_MODULES))
    TrialRunner(CheckReporter, workingDirectory="/tmp/trial").run(suite)
