"""Backpressure on a client connection, in both directions."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import classImplements


class Backpressure:
    """How fast a client reads: the producer of its transport while its connection is HTTP. What its response comes
    from is paused and resumed with it.

    :param on_change: called when the client has caught up.
    :param seconds: the clock.
    :ivar full: the client has not read enough of what was written.
    :ivar changed: when that last changed.
    :ivar source: where the response comes from; None between responses.
    """

    __slots__ = ("_on_change", "_seconds", "changed", "full", "source")

    def __init__(self, on_change: Callable[[], object], seconds: Callable[[], float]) -> None:
        self.full = False
        self.changed = 0.0
        self.source: IPushProducer | None = None
        self._on_change = on_change
        self._seconds = seconds

    def follow(self, source: IPushProducer | None) -> None:
        """From now on pause and resume *source* with the client; None: nothing."""
        self.source = source
        if source is not None and self.full:
            source.pauseProducing()

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self.full = True
        self.changed = self._seconds()
        if self.source is not None:
            self.source.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self.full = False
        self.changed = self._seconds()
        if self.source is not None:
            self.source.resumeProducing()
        self._on_change()

    def stopProducing(self) -> None:
        """The client has gone: its connection's end reaches the exchange by itself."""


class Throttle:
    """Whether a client is read: the producer of the connection that its request's body goes to.

    :param on_change: called when that connection has enough, and when it has caught up.
    :param seconds: the clock.
    :ivar full: that connection has enough to send of the body.
    :ivar changed: when that last changed.
    """

    __slots__ = ("_held", "_on_change", "_seconds", "changed", "full")

    def __init__(self, on_change: Callable[[], object], seconds: Callable[[], float]) -> None:
        self.full = False
        self.changed = 0.0
        self._held = 0.0
        self._on_change = on_change
        self._seconds = seconds

    def held_for(self, now: float) -> float:
        """Seconds in all, until *now*, in which the client was held back."""
        return self._held + (now - self.changed if self.full else 0.0)

    def release(self) -> None:
        """Hold the client back no longer: the connection that did is not its any more."""
        if self.full:
            now = self._seconds()
            self._held = self.held_for(now)
            self.full = False
            self.changed = now

    def pauseProducing(self) -> None:
        """The upstream connection has enough to send."""
        if not self.full:
            self.full = True
            self.changed = self._seconds()
        self._on_change()

    def resumeProducing(self) -> None:
        """The upstream connection has caught up."""
        self.release()
        self._on_change()

    def stopProducing(self) -> None:
        """The upstream connection has gone: its end reaches the exchange by itself."""


# Not by a decorator, which would keep mypyc from making them its own classes.
classImplements(Backpressure, IPushProducer)
classImplements(Throttle, IPushProducer)
