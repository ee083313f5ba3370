"""Who watches a listener: told of its connections, and of each `Record` when it begins and when it is over."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind
from nitroproxy.proxy.record import Record


class Observer:
    """Watches a listener. This one ignores everything; others override what they watch. Called synchronously."""

    def opened(self) -> None:
        """A connection was accepted."""

    def closed(self) -> None:
        """A connection has ended."""

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """A connection from *peer* was turned away."""

    def began(self, record: Record) -> None:
        """An exchange has begun."""

    def switched(self, record: Record) -> None:
        """It has become a tunnel."""

    def ended(self, record: Record, now: float) -> None:
        """It is over."""


class Observers(Observer):
    """Several observers, called one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def opened(self) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.opened()

    def closed(self) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.closed()

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.refused(kind, peer)

    def began(self, record: Record) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.began(record)

    def switched(self, record: Record) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.switched(record)

    def ended(self, record: Record, now: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.ended(record, now)
