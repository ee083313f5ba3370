"""How far one exchange has come, and for how long it may stay there.

The rule (limits.* in the configuration): a timeout means what its name says. `response_timeout` runs while all of the
request is here and no final response is; a 1xx does not extend it. `idle_timeout` runs while a body moves, since
something last moved; for an event stream, which may be silent, `tunnel_timeout` takes its place. A request body must
come at `min_body_rate` on average since it began, less one `idle_timeout`: so it may come in bursts, and may pause for
as long as any connection may. Time in which the next hop does not take it is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.deadlines import TICK, Deadlines
from nitroproxy.proxy.interfaces import Client
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.settings import ExchangeSettings
from nitroproxy.proxy.states import (
    CONNECTING,
    DONE,
    FLOWING,
    NONE,
    PATIENCE,
    SENDING,
    TRANSITIONS,
    Event,
    Limit,
    Patience,
)

#: For a request without a body the time runs since it arrived, however long connecting took.
_KEEPS_TIME: Final = frozenset({Event.HEAD_SENT, Event.STALE})


def _over(error: ProxyError | None) -> None:
    """An exchange that is over is never late."""


class Progress:
    """The states of one exchange; its client's alarm watches them.

    :param record: counts the bytes of the request's body, and names the destination.
    :param on_late: called when the time is over, with the failure, or with None when the client has stopped reading its
        response. It must end the exchange.
    :ivar request: the request's state.
    :ivar response: the response's state.
    :ivar event_stream: the response may be silent for `tunnel_timeout` (text/event-stream).
    """

    __slots__ = (
        "_body_began",
        "_client",
        "_deadlines",
        "_held_before",
        "_last_moved",
        "_on_late",
        "_record",
        "_response_timeout",
        "_settings",
        "_shortest",
        "event_stream",
        "request",
        "response",
    )

    def __init__(
        self,
        client: Client,
        record: Record,
        settings: ExchangeSettings,
        deadlines: Deadlines,
        on_late: Callable[[ProxyError | None], object],
    ) -> None:
        self._client = client
        self._record = record
        self._settings = settings
        self._deadlines = deadlines
        self._on_late = on_late
        self._response_timeout = settings.response_timeout.of(record.host, record.port)
        #: The alarm is set for no longer than this: so when it is set already it is not too late for the next states.
        self._shortest = min(self._response_timeout, settings.shortest_timeout)
        self._last_moved = deadlines.seconds()
        self._body_began = self._held_before = 0.0
        self.request = CONNECTING
        self.response = NONE
        self.event_stream = False

    def happened(self, event: Event) -> None:
        """Go to the states that *event* leads to.

        :raises KeyError: when it is illegal in the present ones; these then stay.
        """
        transition = TRANSITIONS[event]
        before = self.request
        request, response = transition.request[before], transition.response[self.response]
        self.request, self.response = request, response
        alarm = self._client.alarm
        if response is DONE:
            alarm.clear()
            self._on_late = _over  # Otherwise the exchange and this would keep each other alive.
            return
        if request is CONNECTING:
            alarm.clear()
            return
        now = self._deadlines.seconds()
        if (request is not before or event is Event.RESPONSE_HEAD) and event not in _KEEPS_TIME:
            self._last_moved = now
            if request is SENDING and before is not SENDING:
                self._body_began = now
                self._held_before = self._client.throttle.held_for(now)
        if not alarm.is_set:
            if self._last_moved + TICK >= now:
                alarm.set(self._shortest, self._look)
            else:
                self._look_later(now)

    def moved(self) -> None:
        """A piece of a body has moved. The alarm stays as it is: it looks again when the time is over."""
        self._last_moved = self._deadlines.seconds()

    def _look_later(self, now: float) -> None:
        patience = PATIENCE[self.request, self.response]
        left = self._late_at(patience) - now
        if patience.judges_rate:
            left = min(left, self._slow_at(now) - now)
        self._client.alarm.set(max(min(left, self._shortest), 0.0), self._look)

    def _look(self) -> None:
        now = self._deadlines.seconds()
        patience = PATIENCE[self.request, self.response]
        if now >= self._late_at(patience):
            self._late(patience)
        elif patience.judges_rate and now >= self._slow_at(now):
            rate = self._settings.min_body_rate
            detail = f"the request body comes at less than {rate} bytes a second on average (limits.min_body_rate)"
            self._on_late(ProxyError(Kind.REQUEST_TIMEOUT, detail))
        else:
            self._look_later(now)

    def _allowed(self, patience: Patience) -> tuple[float, str]:
        """Seconds that the present states may last, and the key that says so."""
        if patience.limit is Limit.RESPONSE:
            return self._response_timeout, "limits.response_timeout"
        if self.event_stream and self.response is FLOWING and not self._client.pace.full:
            return self._settings.tunnel_timeout, "limits.tunnel_timeout"
        return self._settings.idle_timeout, "limits.idle_timeout"

    def _late_at(self, patience: Patience) -> float:
        """When the time of the present states is over, unless something moves."""
        since = self._last_moved
        if patience.limit is Limit.IDLE:
            # An end that takes bytes again after a pause has moved, too.
            since = max(since, self._client.throttle.changed, self._client.pace.changed)
        return since + self._allowed(patience)[0]

    def _slow_at(self, now: float) -> float:
        """When the request's body will have come too slowly, unless more of it comes."""
        rate = self._settings.min_body_rate
        if not rate:
            return float("inf")
        held = self._client.throttle.held_for(now) - self._held_before
        return self._body_began + held + self._settings.idle_timeout + self._record.received / rate

    def _late(self, patience: Patience) -> None:
        seconds, key = self._allowed(patience)
        bound = f"{seconds:g} seconds ({key})"
        if patience.limit is Limit.RESPONSE:
            self._on_late(ProxyError(patience.late, f"no response within {bound}"))
        elif not (self._client.pace.full if self.response is FLOWING else self._client.throttle.full):
            self._on_late(ProxyError(patience.late, f"nothing moved for {bound}"))
        elif patience.held_back is not None:
            detail = f"the next hop took nothing of the request body for {bound}"
            self._on_late(ProxyError(patience.held_back, detail))
        else:
            self._on_late(None)
