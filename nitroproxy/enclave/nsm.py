"""Schedules the daemon's calls to the NSM: in a thread, one at a time, in a short queue. `nsm_device` makes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from nitroproxy.enclave.nsm_device import Description, NsmDevice, NsmError, check_lengths

_T = TypeVar("_T")

#: The most calls that may wait while another one is under way.
MOST_WAITING: Final = 16
#: Of those, the places that calls for strangers may take: they cannot keep the enclave's own out.
MOST_OF_STRANGERS: Final = MOST_WAITING // 2


class NsmBusy(NsmError):
    """Too many calls wait; the caller may try again in a second. Pages answer 503 with Retry-After."""


class Run(Protocol):
    """Runs a blocking call outside the reactor's thread. It cannot be stopped."""

    def __call__(self, call: Callable[[], _T], /) -> Deferred[_T]:
        """The result of *call*."""


class _Thread(threading.Thread):
    def __init__(self, **how: Any) -> None:
        super().__init__(**how, daemon=True)


class NsmThread(ThreadPool):
    """The thread for `Nsm`, which runs one call at a time. It is started with the first call; a process that ends does
    not wait for a call that hangs."""

    threadFactory = _Thread  # type: ignore[assignment]  # a subclass will do

    def __init__(self) -> None:
        super().__init__(0, 1, "nsm")
        self.start()


def in_thread(reactor: IReactorFromThreads, threads: ThreadPool) -> Run:
    """Runs calls in *threads*. One thread is enough: `Nsm` runs one call at a time."""
    return partial(deferToThreadPool, reactor, threads)


class Nsm:
    """Makes calls to the NSM, first come, first served; one that is urgent before the others.

    The driver serialises all callers in the enclave, so more than one call at a time would only hold more threads.
    The methods are called in the reactor's thread, and may be called from the callbacks of earlier results.
    A result may be cancelled. A call that still waits is then dropped; a call that is under way continues, and the next
    one starts when it ends.

    Every result fails with `NsmBusy` when the queue is full, and with `NsmError` when the NSM fails.

    :param run: runs the blocking calls.
    :param most_waiting: the length of the queue.
    """

    def __init__(self, device: NsmDevice, run: Run, most_waiting: int = MOST_WAITING) -> None:
        self._device = device
        self._run = run
        self._most_waiting = most_waiting
        self._running = False
        self._closed = False
        #: The call for each result, oldest first.
        self._waiting: dict[Deferred[Any], Callable[[], object]] = {}

    def attestation(
        self,
        *,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
        places: int | None = None,
        urgent: bool = False,
    ) -> Deferred[bytes]:
        """A document that carries these: user_data and nonce up to 512 bytes, public_key 1 to 1,024.

        Fails with ValueError if one of them is of another length.

        :param places: of the queue; it fails when as many calls wait. None: all.
        :param urgent: it waits for none of those that wait, however many they are. At most one at a time is.
        """
        fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        try:
            check_lengths(**fields)
        except ValueError:
            return fail(Failure())
        return self._submit(partial(self._device.attestation, **fields), places, urgent=urgent)

    def random(self) -> Deferred[bytes]:
        """256 random bytes."""
        return self._submit(self._device.random)

    def describe(self) -> Deferred[Description]:
        """What the NSM says about itself."""
        return self._submit(self._device.describe)

    def close(self) -> None:
        """Close the device, after the call that is under way; those that wait fail."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for result in waiting:
            result.errback(NsmError("the NSM has been closed"))
        if not self._running:
            self._device.close()

    def _submit(self, call: Callable[[], _T], places: int | None = None, *, urgent: bool = False) -> Deferred[_T]:
        if self._closed:
            return fail(NsmError("the NSM has been closed"))
        most = self._most_waiting if places is None else min(places, self._most_waiting)
        if len(self._waiting) >= most and not urgent:
            return fail(NsmBusy(f"the NSM is busy, and {len(self._waiting)} calls wait for it"))
        result: Deferred[_T] = Deferred(self._abandon)
        if urgent:
            self._waiting = {result: call, **self._waiting}
        else:
            self._waiting[result] = call
        self._advance()
        return result

    def _advance(self) -> None:
        if self._running or not self._waiting:
            return
        result = next(iter(self._waiting))
        call = self._waiting.pop(result)
        self._running = True
        self._run(call).addBoth(self._ended, result)

    def _ended(self, outcome: object, result: Deferred[object]) -> None:
        self._running = False
        if self._closed:
            self._device.close()
        if not result.called:  # Not cancelled.
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)
        self._advance()

    def _abandon(self, result: Deferred[Any]) -> None:
        self._waiting.pop(result, None)
