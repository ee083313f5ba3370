"""How long a client may go without a request, and how long it may take to send a request's head."""

from __future__ import annotations

from collections.abc import Callable

from nitroproxy.proxy.deadlines import Alarm


class HeadTimeout:
    """The time between a client's requests. The client's connection calls `begin` when a head may come, `arriving`
    with each part of one, and `over` when it is complete or the connection ends.

    :param alarm: the client's.
    :param on_idle: called when no head has begun in time.
    :param on_late: called when a head that has begun is not complete in time.
    :ivar begun: a part of a head has arrived.
    """

    __slots__ = ("_alarm", "_on_idle", "_on_late", "begun")

    def __init__(self, alarm: Alarm, on_idle: Callable[[], object], on_late: Callable[[], object]) -> None:
        self._alarm = alarm
        self._on_idle = on_idle
        self._on_late = on_late
        self.begun = False

    def begin(self, idle_timeout: float) -> None:
        """A head may come now.

        :param idle_timeout: seconds in which one must begin.
        """
        self.begun = False
        self._alarm.set(idle_timeout, self._on_idle)

    def arriving(self, header_timeout: float) -> None:
        """A part of a head is here. Only the first part starts the time; later parts do not extend it.

        :param header_timeout: seconds in which all of it must be here.
        """
        if not self.begun:
            self.begun = True
            self._alarm.set(header_timeout, self._on_late)

    def over(self) -> None:
        """Stop waiting."""
        self._alarm.clear()
