"""How fast a client reads, and how fast it is read."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Backpressure:
    """How fast a client reads: the producer of its transport for as long as its connection is HTTP. Whatever its
    response comes from goes at that pace.

    :param on_change: called when the client has caught up.
    :ivar full: the client has not read enough of what was written.
    """

    __slots__ = ("_on_change", "_source", "full")

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.full = False
        self._source: IPushProducer | None = None
        self._on_change = on_change

    def follow(self, source: IPushProducer | None) -> None:
        """From now on *source* is paused and resumed with the client."""
        self._source = source
        if source is not None and self.full:
            source.pauseProducing()

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self.full = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self.full = False
        if self._source is not None:
            self._source.resumeProducing()
        self._on_change()

    def stopProducing(self) -> None:
        """The client has gone: its connection's end tells everybody."""


@implementer(IPushProducer)
class Throttle:
    """Whether a client is read: the producer of the connection that its request's body goes to.

    :param on_change: called when that connection has enough, and when it has caught up.
    :ivar full: it has enough to send of the body.
    :ivar was_full: it had at some time since this was last set to False.
    """

    __slots__ = ("_on_change", "full", "was_full")

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.full = False
        self.was_full = False
        self._on_change = on_change

    def pauseProducing(self) -> None:
        """The upstream connection has enough to send."""
        self.full = self.was_full = True
        self._on_change()

    def resumeProducing(self) -> None:
        """The upstream connection has caught up."""
        self.full = False
        self._on_change()

    def stopProducing(self) -> None:
        """The upstream connection has gone: the exchange is told by itself."""
