"""Lookups of names: those of the same name are shared, abandoned ones are cancelled, and their number is bounded. Knows
nothing of how a name is looked up, nor of what its addresses are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError

#: Names looked up at the same time: each has a socket or two and some 10 KiB.
MOST: Final = 512


class _Lookup:
    """One name that is being looked up, and those who wait for it."""

    __slots__ = ("asking", "looking")

    def __init__(self) -> None:
        self.asking: list[Deferred[Sequence[str]]] = []
        self.looking: Deferred[Sequence[str]] | None = None


class Lookups:
    """Looks names up, *most* at the same time.

    No lookup waits for another. When one more is asked for, the one that has taken longest gives way. A name that is
    answered at all is answered long before that happens to it, so slow names, however many, only displace each other.
    A client holds at most one lookup for each of its connections.

    :param begin: begins one lookup, which may be cancelled.
    """

    def __init__(self, begin: Callable[[str], Deferred[Sequence[str]]], most: int = MOST) -> None:
        self._begin = begin
        self._most = most
        #: In order of age.
        self._lookups: dict[str, _Lookup] = {}

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """The addresses of *host*. Those who ask while it is being looked up share the lookup and its result.

        May be cancelled; a lookup without waiters is cancelled too. May be called from the callback of another.

        :returns: fails as the lookup does, or with `Kind.DNS_TIMEOUT` when it gave way to a newer one.
        """
        result: Deferred[Sequence[str]] = Deferred(partial(self._forget, host))
        lookup = self._lookups.get(host)
        if lookup is not None:
            lookup.asking.append(result)
            return result
        while len(self._lookups) >= self._most:
            self._give_way()
        lookup = self._lookups[host] = _Lookup()
        lookup.asking.append(result)
        lookup.looking = self._begin(host)
        lookup.looking.addBoth(self._ended, host, lookup)
        return result

    def _give_way(self) -> None:
        host, lookup = next(iter(self._lookups.items()))
        detail = f"{host} was not resolved before {self._most} newer names were asked for"
        self._cancel(host, lookup)
        self._tell(lookup, Failure(ProxyError(Kind.DNS_TIMEOUT, detail)))

    def _cancel(self, host: str, lookup: _Lookup) -> None:
        del self._lookups[host]
        if lookup.looking is not None:
            lookup.looking.cancel()

    def _ended(self, outcome: Sequence[str] | Failure, host: str, lookup: _Lookup) -> None:
        if self._lookups.get(host) is lookup:
            del self._lookups[host]
            self._tell(lookup, outcome)

    def _tell(self, lookup: _Lookup, outcome: Sequence[str] | Failure) -> None:
        for result in lookup.asking:
            if result.called:
                continue  # It was cancelled by the callback of another.
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

    def _forget(self, host: str, result: Deferred[Sequence[str]]) -> None:
        lookup = self._lookups.get(host)
        if lookup is not None and result in lookup.asking:
            lookup.asking.remove(result)
            if not lookup.asking:
                self._cancel(host, lookup)
