"""Names being looked up: shared, bounded, not for nobody; and the system's resolver in threads."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.lookup import Lookups, in_thread


class LookupsTests(SynchronousTestCase):
    """Two at a time, three that wait, each answered when the test says so."""

    def setUp(self) -> None:
        self.begun: dict[str, Deferred[Sequence[str]]] = {}
        self.lookups = Lookups(self.run_one, most=2, most_waiting=3)

    def run_one(self, host: str) -> Deferred[Sequence[str]]:
        self.assertNotIn(host, self.begun)
        self.begun[host] = Deferred()
        return self.begun[host]

    def answer(self, host: str) -> None:
        self.begun.pop(host).callback([f"address of {host}"])

    def test_shared(self) -> None:
        """All who ask for a name while it is being looked up are told of one lookup; who asks later, of another."""
        asked = [self.lookups("a") for _ in range(50)]
        self.answer("a")
        self.assertEqual([self.successResultOf(result) for result in asked], [["address of a"]] * 50)
        later = self.lookups("a")
        self.begun.pop("a").errback(Failure(socket.gaierror(socket.EAI_NONAME, "unknown")))
        self.failureResultOf(later, socket.gaierror)

    def test_newest_first(self) -> None:
        """When all threads are taken the name that came last, or was asked for again last, is next."""
        for host in "abcde":
            self.lookups(host)
        self.assertEqual([*self.begun], ["a", "b"])
        self.lookups("c")
        self.answer("a")
        self.assertEqual([*self.begun], ["b", "c"])
        self.answer("b")
        self.answer("c")
        self.assertEqual([*self.begun], ["e", "d"])

    def test_not_for_nobody(self) -> None:
        """A name that was given up while it waited is not looked up, unless somebody else still asks for it."""
        asked = {host: self.lookups(host) for host in "abcd"}
        other = self.lookups("d")
        for host in "cd":
            asked[host].cancel()
            self.failureResultOf(asked[host], CancelledError)
        self.answer("a")
        self.answer("b")
        self.assertEqual([*self.begun], ["d"])
        self.answer("d")
        self.assertEqual(self.successResultOf(other), ["address of d"])
        self.assertEqual(self.begun, {})

    def test_given_up_while_it_runs(self) -> None:
        """A lookup that was given up keeps its thread until it ends, also by failing; who asks meanwhile is told."""
        for host in "ab":
            asked = self.lookups(host)
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        waiting, again = self.lookups("c"), self.lookups("a")
        self.assertEqual([*self.begun], ["a", "b"])
        self.begun.pop("b").errback(Failure(OSError("late")))
        self.answer("a")
        self.answer("c")
        self.assertEqual(self.successResultOf(waiting), ["address of c"])
        self.assertEqual(self.successResultOf(again), ["address of a"])

    def test_too_many(self) -> None:
        """When too many wait the one that has waited longest is refused; what comes new still has its chance."""
        asked = {host: self.lookups(host) for host in "abcdef"}
        refusal: ProxyError = self.failureResultOf(asked["c"], ProxyError).value
        self.assertIs(refusal.kind, Kind.DNS_TIMEOUT)
        self.answer("a")
        self.answer("f")
        self.assertEqual(self.successResultOf(asked["f"]), ["address of f"])

    def test_told_and_giving_up(self) -> None:
        """One who gives up because of what another was told is not told as well."""
        first, second = self.lookups("a"), self.lookups("a")
        first.addCallback(lambda _: second.cancel())
        self.answer("a")
        self.failureResultOf(second, CancelledError)


class ThreadTests(TestCase):
    """The system's resolver."""

    async def test_localhost(self) -> None:
        """A name that the system knows by itself is looked up in a thread; each address comes once."""
        reactor: Any = global_reactor
        threads = ThreadPool(0, 1)
        threads.start()
        self.addCleanup(threads.stop)
        addresses = await Lookups(in_thread(reactor, threads))("localhost")
        self.assertIn("127.0.0.1", addresses)
        self.assertEqual(len(set(addresses)), len(addresses))
