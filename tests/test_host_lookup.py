"""Lookups of names: shared, cancelled with the last who waits, and none held up by slow ones (K2)."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.lookup import MOST, Lookups


class LookupsTests(SynchronousTestCase):
    """Three at a time, each answered when the test says so."""

    def setUp(self) -> None:
        self.begun: dict[str, Deferred[Sequence[str]]] = {}
        self.cancelled: list[str] = []
        self.lookups = Lookups(self.begin, most=3)

    def begin(self, host: str) -> Deferred[Sequence[str]]:
        self.assertNotIn(host, self.begun)

        def cancel(_: object) -> None:
            self.cancelled.append(host)
            del self.begun[host]

        self.begun[host] = Deferred(cancel)
        return self.begun[host]

    def answer(self, host: str) -> None:
        self.begun.pop(host).callback([f"address of {host}"])

    def test_shared(self) -> None:
        """All who ask for a name while it is being looked up share one lookup; one who asks later has another."""
        asked = [self.lookups("a") for _ in range(50)]
        self.answer("a")
        self.assertEqual([self.successResultOf(result) for result in asked], [["address of a"]] * 50)
        later = self.lookups("a")
        self.begun.pop("a").errback(Failure(DNSLookupError("unknown")))
        self.failureResultOf(later, DNSLookupError)

    def test_slow_names(self) -> None:
        """Slow names, more than there are places, keep no new one waiting: the oldest gives way and says so."""
        slow = [self.lookups(f"slow{number}") for number in range(40)]
        wanted = self.lookups("wanted")
        self.answer("wanted")
        self.assertEqual(self.successResultOf(wanted), ["address of wanted"])
        self.assertEqual(self.cancelled, [f"slow{number}" for number in range(38)])
        for number in range(38):
            refusal: ProxyError = self.failureResultOf(slow[number], ProxyError).value
            self.assertIs(refusal.kind, Kind.DNS_TIMEOUT)
            self.assertIn(f"slow{number} was not resolved", refusal.detail)
        self.assertNoResult(slow[39])

    def test_flood(self) -> None:
        """The names of one domain displace each other, and neither an older nor a newer name of another."""
        before = self.lookups("slow.example.org")
        self.lookups("a.flood.example").addErrback(lambda failure: None)
        for number in range(40):
            self.lookups(f"x{number}.y{number}.flood.example").addErrback(lambda failure: None)
        after = self.lookups("slow.example.net")
        for number in range(40):
            self.lookups(f"z{number}.flood.example").addErrback(lambda failure: None)
        self.assertEqual(set(self.begun), {"slow.example.org", "slow.example.net", "z39.flood.example"})
        for host, result in (("slow.example.org", before), ("slow.example.net", after)):
            self.answer(host)
            self.assertEqual(self.successResultOf(result), [f"address of {host}"])

    def test_bound(self) -> None:
        """By default the number of lookups under way is bounded too."""
        self.lookups = Lookups(self.begin)
        for number in range(MOST + 10):
            self.lookups(f"name{number}").addErrback(lambda failure: None)
        self.assertEqual(len(self.begun), MOST)

    def test_abandoned(self) -> None:
        """A lookup is cancelled with the last who waits for it, and only then."""
        first, second = self.lookups("a"), self.lookups("a")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.cancelled, ["a"])
        again = self.lookups("a")
        self.answer("a")
        self.assertEqual(self.successResultOf(again), ["address of a"])

    def test_answered_at_once(self) -> None:
        """A lookup that has its result when it begins takes no place."""
        self.lookups = Lookups(lambda host: succeed(["192.0.2.1"]) if host == "a" else fail(OSError()), most=1)
        for _ in range(3):
            self.assertEqual(self.successResultOf(self.lookups("a")), ["192.0.2.1"])
            self.failureResultOf(self.lookups("b"), OSError)

    def test_cancelled_by_another(self) -> None:
        """One who gives up in the callback of another is not called back as well."""
        first, second = self.lookups("a"), self.lookups("a")
        first.addCallback(lambda _: second.cancel())
        self.answer("a")
        self.failureResultOf(second, CancelledError)

    def test_asked_in_a_callback(self) -> None:
        """A name may be asked for again in the callback of its lookup, and is looked up anew."""
        again: list[Deferred[Sequence[str]]] = []
        self.lookups("a").addCallback(lambda _: again.append(self.lookups("a")))
        self.answer("a")
        self.answer("a")
        self.assertEqual(self.successResultOf(again[0]), ["address of a"])
