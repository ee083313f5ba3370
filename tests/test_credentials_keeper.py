"""Tests of `nitroproxy.credentials.keeper`."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.credentials.document import Credentials, CredentialsUnavailable, read_metadata
from nitroproxy.credentials.keeper import Keeper
from nitroproxy.telemetry.logs import EventLog
from tests.imds import metadata_document

T0 = 1_800_000_000.0


class KeeperTests(SynchronousTestCase):
    """When it asks, and what it gives meanwhile."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = T0
        self.asked: list[Deferred[Credentials]] = []
        self.keeper = Keeper(self.ask, lambda: self.wall + self.clock.seconds(), self.clock.seconds)
        self.events: list[str] = []
        observer = EventLog("INFO", [lambda event: self.events.append(event["event"])])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def ask(self) -> Credentials:
        self.asked.append(Deferred())
        return await self.asked[-1]

    def made(self, key: str, lifetime: float) -> Credentials:
        expiration = datetime.fromtimestamp(self.wall + self.clock.seconds() + lifetime, UTC)
        return read_metadata(
            metadata_document(AccessKeyId=key * 16, Expiration=expiration.strftime("%Y-%m-%dT%H:%M:%SZ"))
        )

    def get(self) -> Deferred[Credentials]:
        return Deferred.fromCoroutine(self.keeper.get())

    def key(self) -> str:
        """Of what is given at once."""
        return self.successResultOf(self.get()).access_key_id[0]

    def give(self, key: str, lifetime: float = 21600.0) -> None:
        """Answer the question."""
        self.asked.pop().callback(self.made(key, lifetime))

    def refuse(self, words: str = "no") -> None:
        self.asked.pop().errback(CredentialsUnavailable(words))

    def first(self, lifetime: float = 21600.0) -> None:
        asking = self.get()
        self.give("A", lifetime)
        self.successResultOf(asking)

    def test_kept(self) -> None:
        """They are asked for when somebody wants them, and then given for five minutes without asking."""
        self.assertEqual(self.asked, [])
        self.first()
        self.clock.advance(299)
        self.assertEqual((self.key(), self.asked), ("A", []))
        self.clock.advance(2)
        asking = self.get()
        self.give("B")
        self.assertEqual(self.successResultOf(asking).access_key_id[0], "B")

    def test_renewed(self) -> None:
        """From ten minutes before their end new ones are asked for; while there are none, not at every request."""
        self.first(700)
        self.clock.advance(101)
        asking = self.get()
        self.give("A", 599)
        self.successResultOf(asking)
        self.assertEqual((self.key(), self.asked), ("A", []))
        self.clock.advance(2)
        self.get()
        self.give("B")
        self.assertEqual(self.key(), "B")

    def test_shared(self) -> None:
        """One question serves all who wait, whether it succeeds or fails."""
        waiting = [self.get() for _ in range(50)]
        self.assertEqual(len(self.asked), 1)
        self.give("A")
        self.assertEqual({self.successResultOf(one).access_key_id[0] for one in waiting}, {"A"})
        self.clock.advance(301)
        waiting = [self.get() for _ in range(3)]
        self.assertEqual(len(self.asked), 1)
        self.refuse()
        self.assertEqual({self.successResultOf(one).access_key_id[0] for one in waiting}, {"A"})

    def test_failing(self) -> None:
        """While the service fails the old ones are given until they end; that is told once, and so is its return."""
        self.first(1000)
        for _ in range(4):
            self.clock.advance(200)
            self.get()
            if self.asked:
                self.refuse("broken")
            self.assertEqual((self.key(), self.keeper.trouble), ("A", self.keeper.trouble))
        self.assertEqual((self.events, self.keeper.trouble), (["credentials_unavailable"], "broken"))
        self.clock.advance(200)
        asking = self.get()
        self.refuse("still broken")
        self.assertEqual(str(self.failureResultOf(asking, CredentialsUnavailable).value), "still broken")
        self.clock.advance(2)
        self.first()
        self.assertEqual((self.events[1:], self.keeper.trouble), (["credentials_available"], ""))

    def test_pause(self) -> None:
        """A service that fails is not asked at every request."""
        self.get().addErrback(lambda failure: None)
        self.refuse("first")
        for _ in range(10):
            self.assertEqual(str(self.failureResultOf(self.get()).value), "first")
        self.assertEqual(self.asked, [])
        self.clock.advance(2)
        self.first()

    def test_expired(self) -> None:
        """What the service gives may have ended: it is not given on."""
        asking = self.get()
        self.give("A", -1)
        self.assertIn("expired", str(self.failureResultOf(asking, CredentialsUnavailable).value))

    def test_clock_set(self) -> None:
        """When the clock is set forward beyond their end they are not given any more."""
        self.first()
        self.clock.advance(10)
        self.wall += 30000
        asking = self.get()
        self.refuse("no")
        self.failureResultOf(asking, CredentialsUnavailable)

    def test_defect(self) -> None:
        """A defect is logged with its traceback, and fails the request, not the keeper."""
        asking = self.get()
        self.asked.pop().errback(ZeroDivisionError())
        self.assertIn("internal error", str(self.failureResultOf(asking, CredentialsUnavailable).value))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(2)
        self.first()
