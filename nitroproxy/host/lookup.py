"""Lookups of names: those of the same name are shared, abandoned ones are cancelled, and their number is bounded. Knows
nothing of how a name is looked up, nor of what its addresses are for.

The rule: no lookup waits for another. When there are too many, one of the domain that has most under way gives way, so
that names of one domain, however many and however slow, only displace each other.
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

    When one more is asked for, the oldest gives way of the domain with most under way. A client holds at most one
    lookup for each of its connections.

    :param begin: begins one lookup, which may be cancelled.
    """

    def __init__(self, begin: Callable[[str], Deferred[Sequence[str]]], most: int = MOST) -> None:
        self._begin = begin
        self._most = most
        self._lookups: dict[str, _Lookup] = {}
        #: The names under way of each domain, in order of age; the domains by that of their first.
        self._domains: dict[str, dict[str, None]] = {}

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
        lookup = self._lookups[host] = _Lookup()
        self._domains.setdefault(_domain(host), {})[host] = None
        lookup.asking.append(result)
        while len(self._lookups) > self._most:
            self._give_way()
        lookup.looking = self._begin(host)
        lookup.looking.addBoth(self._ended, host, lookup)
        return result

    def _give_way(self) -> None:
        names: dict[str, None] = max(self._domains.values(), key=len)
        host = next(iter(names))
        lookup = self._lookups[host]
        detail = f"{host} was not resolved when more than {self._most} names were asked for"
        self._cancel(host, lookup)
        self._tell(lookup, Failure(ProxyError(Kind.DNS_TIMEOUT, detail)))

    def _remove(self, host: str) -> None:
        del self._lookups[host]
        names = self._domains[_domain(host)]
        del names[host]
        if not names:
            del self._domains[_domain(host)]

    def _cancel(self, host: str, lookup: _Lookup) -> None:
        self._remove(host)
        if lookup.looking is not None:
            lookup.looking.cancel()

    def _ended(self, outcome: Sequence[str] | Failure, host: str, lookup: _Lookup) -> None:
        if self._lookups.get(host) is lookup:
            self._remove(host)
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


def _domain(host: str) -> str:
    """What *host* counts for: its last two labels. Where these are a public suffix (co.uk) more names count together
    than belong together, which matters only when there are too many."""
    return ".".join(host.rsplit(".", 2)[-2:])
