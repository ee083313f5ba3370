"""How fast a client reads: the producer of its transport for as long as its connection is HTTP."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Pace:
    """Passes the pace of one client on to whatever its response comes from.

    :param on_change: called when the client has caught up.
    :ivar full: the client has not read enough of what was written.
    """

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
