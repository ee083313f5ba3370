"""How long a client may go without a request, and how long it may take to send a request's head."""

from __future__ import annotations

from collections.abc import Callable

from nitroproxy.proxy.deadlines import Deadline, Deadlines


class HeadTimeout:
    """The time between a client's requests. The client's connection calls `begin` when a head may come, `arriving`
    with each part of one, `arrived` when it is complete, and `over` when it ends.

    :param on_idle: called when no head has begun in time.
    :param on_late: called when a head that has begun is not complete in time.
    :ivar begun: a part of a head has arrived.
    """

    __slots__ = ("_deadline", "_deadlines", "_idle_timeout", "_on_idle", "_on_late", "_since", "_waiting", "begun")

    def __init__(self, deadlines: Deadlines, on_idle: Callable[[], object], on_late: Callable[[], object]) -> None:
        self._deadlines = deadlines
        self._on_idle = on_idle
        self._on_late = on_late
        self._deadline: Deadline | None = None
        self._waiting = False
        self._since = 0.0
        self._idle_timeout = 0.0
        self.begun = False

    def begin(self, idle_timeout: float) -> None:
        """A head may come now.

        :param idle_timeout: seconds in which one must begin.
        """
        self._waiting = True
        self.begun = False
        self._since = self._deadlines.seconds()
        self._idle_timeout = idle_timeout
        if self._deadline is None:
            self._deadline = self._deadlines.after(idle_timeout, self._look)

    def arriving(self, header_timeout: float) -> None:
        """A part of a head is here. Only the first part starts the time; later parts do not extend it.

        :param header_timeout: seconds in which all of it must be here.
        """
        if not self.begun:
            self.begun = True
            self.over()
            self._deadline = self._deadlines.after(header_timeout, self._on_late)

    def arrived(self) -> None:
        """The head is complete."""
        self._waiting = False
        if self.begun:
            self.over()

    def over(self) -> None:
        """Stop waiting."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look(self) -> None:
        """One deadline for many requests: instead of being set again with each, it looks how long none has come."""
        self._deadline = None
        if not self._waiting:
            return  # The next wait for a head sets another.
        left = self._since + self._idle_timeout - self._deadlines.seconds()
        if left > 0:
            self._deadline = self._deadlines.after(left, self._look)
        else:
            self._on_idle()
