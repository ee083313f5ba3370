"""`nitroproxy.tls.sessions`: which session is resumed with whom, and for how long."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.tls.sessions
from nitroproxy.tls.sessions import Sessions
from nitroproxy.tls.verification import Clocks, Verdict


class Connection:
    """Has a session, or none."""

    def __init__(self, session: object) -> None:
        self.get_session = lambda: session


class SessionTests(SynchronousTestCase):
    """Sessions of destinations."""

    def setUp(self) -> None:
        self.now, self.wall = 0.0, 1000.0
        self.sessions = Sessions(Clocks(lambda: self.now, lambda: self.wall))

    def keep(self, host: str, port: int, session: object) -> None:
        connection: Any = Connection(session)
        self.sessions.keep(host, port, connection, Verdict(3600.0, 9000.0))

    def found(self, host: str, port: int) -> object:
        found = self.sessions.find(host, port)
        return found.session if found is not None else None

    def test_by_destination(self) -> None:
        """The last session with a host and port is found for these two alone: another port may be another identity."""
        self.keep("a.example", 443, "one")
        self.keep("a.example", 443, "two")
        self.keep("a.example", 8443, "other")
        self.assertEqual(self.found("a.example", 443), "two")
        self.assertEqual(self.found("a.example", 8443), "other")
        self.assertIsNone(self.found("b.example", 443))

    def test_lifetime(self) -> None:
        """A session is not resumed past its verdict: by the monotonic clock, and by the certificates' end."""
        for now, wall, found in ((3599.0, 0.0, "one"), (3600.0, 0.0, None), (0.0, 8999.0, "one"), (0.0, 9000.0, None)):
            self.now, self.wall = 0.0, 1000.0
            self.keep("a.example", 443, "one")
            self.now, self.wall = now, wall
            self.assertEqual(self.found("a.example", 443), found, (now, wall))

    def test_none(self) -> None:
        """A connection without a session leaves the last one where it was."""
        self.keep("a.example", 443, "one")
        self.keep("a.example", 443, None)
        self.assertEqual(self.found("a.example", 443), "one")

    def test_bounded_in_bytes(self) -> None:
        """Sessions with large chains push the oldest ones out long before there are 1,024; each is counted once."""
        large: Any = Connection("large")
        for number in range(300):
            for _ in range(2):
                self.sessions.keep(f"{number}.example", 443, large, Verdict(3600.0, 9000.0, 100_000))
        kept = [number for number in range(300) if self.found(f"{number}.example", 443)]
        self.assertEqual(kept, list(range(300 - (16 << 20) // 104_096, 300)))

    def test_bounded(self) -> None:
        """Of too many sessions the one that was kept longest ago is forgotten."""
        self.patch(nitroproxy.tls.sessions, "_SESSIONS", 2)
        for host in ("a", "b", "a", "c"):
            self.keep(host, 443, host)
        self.assertEqual([self.found(host, 443) for host in "abc"], ["a", None, "c"])
