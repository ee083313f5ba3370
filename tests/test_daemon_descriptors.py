"""The limit on open descriptors."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.descriptors import check_limit, raise_limit
from nitroproxy.telemetry.logs import EventLog


class RaiseTests(SynchronousTestCase):
    """RLIMIT_NOFILE, with the system's calls replaced."""

    def setUp(self) -> None:
        self.limits = (1024, 524288)
        self.refusal: Exception | None = None
        self.patch(resource, "getrlimit", lambda which: self.limits)
        self.patch(resource, "setrlimit", self.set)

    def set(self, which: int, limits: tuple[int, int]) -> None:
        self.assertEqual(which, resource.RLIMIT_NOFILE)
        if self.refusal is not None:
            raise self.refusal
        self.limits = limits

    def test_raised(self) -> None:
        """The soft limit becomes the hard one, which stays (K4)."""
        self.assertEqual((raise_limit(), self.limits), (524288, (524288, 524288)))

    def test_no_hard_limit(self) -> None:
        """Where there is no hard limit, the soft one becomes what Linux allows."""
        self.limits = (1024, resource.RLIM_INFINITY)
        self.assertEqual((raise_limit(), self.limits), (1 << 20, (1 << 20, resource.RLIM_INFINITY)))

    def test_nothing_to_raise(self) -> None:
        """A soft limit that is as high as it can be is left alone."""
        self.refusal = AssertionError("setrlimit was called")
        for limits in ((4096, 4096), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
            self.limits = limits
            self.assertEqual(raise_limit(), limits[0])

    def test_refused(self) -> None:
        """Under our units the sandbox refuses the call: no error, and the limit is what it was (K4)."""
        for self.refusal in (PermissionError(1, "Operation not permitted"), ValueError("not allowed to raise")):
            self.assertEqual((raise_limit(), self.limits), (1024, (1024, 524288)))


class CheckTests(SynchronousTestCase):
    """The limit against ``limits.connections``."""

    def setUp(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_short(self) -> None:
        """Two descriptors a connection and 64 besides must fit; else a warning has the numbers and the cure (K4)."""
        check_limit(1024, 480)
        check_limit(resource.RLIM_INFINITY, 4000)
        self.assertEqual(self.events, [])
        check_limit(1024, 481)
        [event] = self.events
        self.assertEqual((event["level"], event["event"]), ("warn", "descriptors_short"))
        self.assertEqual((event["connections"], event["needed"], event["limit"]), (481, 1026, 1024))
        self.assertIn("LimitNOFILE=", event["message"])
