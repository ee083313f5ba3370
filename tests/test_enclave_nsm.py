"""Tests of `nitroproxy.enclave.nsm`: one call at a time, a bounded queue, real threads."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.enclave.nsm import MOST_WAITING, Nsm, NsmBusy, in_thread
from nitroproxy.enclave.nsm_device import NsmDevice, NsmError
from tests.attestation.fake_nsm import MODULE_ID, FakeNsm

_T = TypeVar("_T")


class Thread:
    """Stands in for the thread: the test says when calls are made."""

    def __init__(self) -> None:
        self._under_way: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, call: Callable[[], _T], /) -> Deferred[_T]:
        assert not self._under_way, "a second call at the same time"
        result: Deferred[_T] = Deferred()
        self._under_way.append((call, result))
        return result

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._under_way)

    def finish(self) -> None:
        """Make the call that is under way, and end it."""
        call, result = self._under_way.pop()
        try:
            outcome = call()
        except Exception:
            result.errback(Failure())
        else:
            result.callback(outcome)


class NsmTests(SynchronousTestCase):
    """Calls and their order."""

    def setUp(self) -> None:
        self.fake = FakeNsm()
        self.patch(fcntl, "ioctl", self.fake.ioctl)
        device = NsmDevice(os.devnull)
        self.addCleanup(device.close)
        self.thread = Thread()
        self.nsm = Nsm(device, self.thread)

    def nonces(self) -> list[bytes]:
        """The nonces that the NSM received, in order."""
        return [request["Attestation"]["nonce"] for request in self.fake.requests]

    def test_results(self) -> None:
        """Each call returns what the device returns."""
        document = self.nsm.attestation(user_data=b"u", nonce=b"n", public_key=b"p")
        octets, description = self.nsm.random(), self.nsm.describe()
        for _ in range(3):
            self.thread.finish()
        self.assertEqual(self.fake.requests[0], {"Attestation": {"user_data": b"u", "nonce": b"n", "public_key": b"p"}})
        self.assertIn(b"SHA384", self.successResultOf(document))
        self.assertEqual(len(self.successResultOf(octets)), 256)
        self.assertEqual(self.successResultOf(description).module_id, MODULE_ID)

    def test_one_at_a_time(self) -> None:
        """The next call is made when the previous one has ended, in the order of the requests."""
        results = [self.nsm.attestation(nonce=bytes([number])) for number in range(4)]
        for number in range(4):
            self.assertNoResult(results[number])
            self.thread.finish()
            self.successResultOf(results[number])
        self.assertFalse(self.thread.busy)
        self.assertEqual(self.nonces(), [b"\0", b"\1", b"\2", b"\3"])

    def test_failure(self) -> None:
        """A failed call fails its own result only, and the next one is made."""
        first, second = self.nsm.random(), self.nsm.random()
        self.fake.instead = OSError(5, "Input/output error")
        self.thread.finish()
        self.failureResultOf(first, NsmError)
        self.fake.instead = None
        self.thread.finish()
        self.successResultOf(second)

    def test_full(self) -> None:
        """Sixteen calls may wait besides the one under way; the next one fails at once and takes no place."""
        results = [self.nsm.random() for _ in range(MOST_WAITING + 1)]
        self.assertEqual(len(results), 17)
        for _ in range(2):
            failure = self.failureResultOf(self.nsm.random(), NsmBusy)
            self.assertIn("16 calls wait", failure.getErrorMessage())
        self.thread.finish()
        results.append(self.nsm.random())
        self.failureResultOf(self.nsm.random(), NsmBusy)
        for _ in range(MOST_WAITING + 1):
            self.thread.finish()
        self.assertEqual([len(self.successResultOf(result)) for result in results], [256] * 18)
        self.assertFalse(self.thread.busy)

    def test_places(self) -> None:
        """A call that may take fewer places of the queue is refused while the others still find one."""
        results = [self.nsm.random() for _ in range(9)]
        failure = self.failureResultOf(self.nsm.attestation(places=8), NsmBusy)
        self.assertIn("8 calls wait", failure.getErrorMessage())
        results.append(self.nsm.random())
        self.thread.finish()
        self.thread.finish()
        accepted = self.nsm.attestation(places=9)
        while self.thread.busy:
            self.thread.finish()
        self.successResultOf(accepted)

    def test_urgent(self) -> None:
        """An urgent call waits for the one that is under way and for no other, however many wait."""
        results = [self.nsm.random() for _ in range(MOST_WAITING + 1)]
        urgent = self.nsm.attestation(nonce=b"u", urgent=True)
        self.thread.finish()
        self.assertNoResult(urgent)
        self.thread.finish()
        self.successResultOf(urgent)
        self.assertNoResult(results[1])
        while self.thread.busy:
            self.thread.finish()
        self.assertEqual([len(self.successResultOf(result)) for result in results], [256] * len(results))

    def test_close(self) -> None:
        """Closed, it fails what waits and what comes; the device is closed after the call that is under way."""
        closed: list[None] = []
        self.patch(self.nsm._device, "close", lambda: closed.append(None))
        under_way, waiting = self.nsm.random(), self.nsm.random()
        self.nsm.close()
        self.failureResultOf(waiting, NsmError)
        self.failureResultOf(self.nsm.random(), NsmError)
        self.assertEqual(closed, [])
        self.thread.finish()
        self.successResultOf(under_way)
        self.assertEqual(closed, [None])

    def test_lengths(self) -> None:
        """Fields that verifiers would refuse are refused before the NSM is asked."""
        for name, size in (("nonce", 513), ("user_data", 513), ("public_key", 1025), ("public_key", 0)):
            fields: dict[str, Any] = {name: bytes(size)}
            self.failureResultOf(self.nsm.attestation(**fields), ValueError)
        self.assertFalse(self.thread.busy)

    def test_cancelled_while_waiting(self) -> None:
        """A call that is cancelled while it waits is not made, and its place is free."""
        results = [self.nsm.attestation(nonce=bytes([number])) for number in range(MOST_WAITING + 1)]
        results[5].cancel()
        self.failureResultOf(results[5], CancelledError)
        results.append(self.nsm.attestation(nonce=b"last"))
        while self.thread.busy:
            self.thread.finish()
        self.assertEqual(len(self.nonces()), MOST_WAITING + 1)
        self.assertNotIn(b"\5", self.nonces())
        self.assertEqual(self.nonces()[-1], b"last")
        del results[5]
        for result in results:
            self.successResultOf(result)

    def test_cancelled_under_way(self) -> None:
        """A call that is cancelled while under way still blocks the next one: it cannot be stopped."""
        first, second = self.nsm.attestation(nonce=b"1"), self.nsm.attestation(nonce=b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.thread.finish()
        self.assertNoResult(second)
        self.thread.finish()
        self.successResultOf(second)
        self.assertEqual(self.nonces(), [b"1", b"2"])

    def test_cancelled_and_failed(self) -> None:
        """The failure of a cancelled call is dropped, and not logged as unhandled."""
        result = self.nsm.random()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.fake.instead = OSError(5, "Input/output error")
        self.thread.finish()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_asked_again_from_a_result(self) -> None:
        """A call made from a callback queues behind the calls that wait."""
        first, second = self.nsm.attestation(nonce=b"1"), self.nsm.attestation(nonce=b"2")
        again: list[Deferred[bytes]] = []
        first.addCallback(lambda _: again.append(self.nsm.attestation(nonce=b"3")))
        for _ in range(3):
            self.thread.finish()
        self.successResultOf(second)
        self.successResultOf(again[0])
        self.assertEqual(self.nonces(), [b"1", b"2", b"3"])


class ThreadTests(TestCase):
    """In a real thread."""

    async def test_in_thread(self) -> None:
        """Calls are made outside the reactor's thread, never two at the same time, and results arrive in it."""
        reactor: Any = global_reactor
        fake, inside, where = FakeNsm(), threading.Semaphore(1), []

        def ioctl(fd: int, request: int, raw: bytearray, mutate: bool) -> int:
            assert inside.acquire(blocking=False), "two calls at the same time"
            where.append(threading.get_ident())
            try:
                return fake.ioctl(fd, request, raw, mutate)
            finally:
                inside.release()

        self.patch(fcntl, "ioctl", ioctl)
        threads = ThreadPool(0, 4, "nsm")
        threads.start()
        self.addCleanup(threads.stop)
        device = NsmDevice(os.devnull)
        self.addCleanup(device.close)
        nsm = Nsm(device, in_thread(reactor, threads))
        told_in: list[int] = []
        results = [nsm.random().addCallback(lambda _: told_in.append(threading.get_ident())) for _ in range(17)]
        for result in results:
            await result
        self.assertEqual(set(told_in), {threading.get_ident()})
        self.assertEqual(len(where), 17)
        self.assertNotIn(threading.get_ident(), where)
