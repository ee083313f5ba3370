"""Names being looked up: in threads, each name once at a time, and never for nobody. Knows nothing of what the
addresses are for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from nitroproxy.errors import Kind, ProxyError

#: Names looked up at the same time. A lookup holds its thread for as long as the resolver takes, given up or not.
THREADS: Final = 32
#: Names that may wait for a thread.
_MOST_WAITING: Final = 256


def look_up(host: str) -> Sequence[str]:
    """The addresses that the system's resolver gives for *host*. Blocks.

    :raises socket.gaierror: when it gives none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def in_thread(reactor: IReactorFromThreads, threads: ThreadPool) -> Callable[[str], Deferred[Sequence[str]]]:
    """`look_up` in one of *threads*, of which there are `THREADS`."""
    return lambda host: deferToThreadPool(reactor, threads, look_up, host)


class Lookups:
    """Looks names up, *most* at the same time; those beyond wait.

    Of those that wait the newest goes first: it has the most time left, and what is asked for in vain cannot queue up
    in front of it. When too many wait the oldest is refused.

    :param run: begins one lookup. It cannot be stopped.
    """

    def __init__(
        self, run: Callable[[str], Deferred[Sequence[str]]], most: int = THREADS, most_waiting: int = _MOST_WAITING
    ) -> None:
        self._run = run
        self._most = most
        self._most_waiting = most_waiting
        self._running = 0
        #: In order of age; a dict for its order.
        self._waiting: dict[str, None] = {}
        #: Who is to be told, for each name that runs or waits.
        self._asking: dict[str, list[Deferred[Sequence[str]]]] = {}

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """The addresses of *host*: all who ask while it is being looked up are told of the same lookup.

        Fails as the lookup does, or with `Kind.DNS_TIMEOUT` when too many names wait. May be cancelled: a name that
        waits and that nobody asks for any more is not looked up.
        """
        result: Deferred[Sequence[str]] = Deferred(partial(self._forget, host))
        running = host in self._asking and host not in self._waiting
        self._asking.setdefault(host, []).append(result)
        if not running:
            self._waiting.pop(host, None)
            self._waiting[host] = None
            self._advance()
        return result

    def _advance(self) -> None:
        while self._waiting and self._running < self._most:
            host, _ = self._waiting.popitem()
            self._running += 1
            self._run(host).addBoth(self._ended, host)
        if len(self._waiting) > self._most_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            detail = f"{oldest} was not looked up: the resolver is busy with {self._running} other names"
            self._tell(oldest, Failure(ProxyError(Kind.DNS_TIMEOUT, detail)))

    def _ended(self, outcome: Sequence[str] | Failure, host: str) -> None:
        self._running -= 1
        self._tell(host, outcome)
        self._advance()

    def _tell(self, host: str, outcome: Sequence[str] | Failure) -> None:
        for result in self._asking.pop(host):
            if result.called:
                continue  # What another was told made it give up.
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

    def _forget(self, host: str, result: Deferred[Sequence[str]]) -> None:
        asking = self._asking.get(host, [])
        if result in asking:
            asking.remove(result)
        if not asking and host in self._waiting:
            del self._waiting[host], self._asking[host]
