"""The states of an exchange as data: one table of transitions, and how long each pair of states may last.

An exchange is two state machines that run side by side, one for the request and one for the response, in the manner of
h11's `_state.py`. `TRANSITIONS` says which events are legal in which states and where they lead. `PATIENCE` says how
long a pair of states may last and which failure its end is. Knows nothing of connections, clocks or settings;
`progress` applies both tables.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nitroproxy.errors import Kind


class RequestState(enum.IntEnum):
    """How far the request has gone to the next hop."""

    #: There is no connection to the next hop yet, or it has died and another is being made.
    CONNECTING = enum.auto()
    #: The head has been sent; the client waits for a 100 before it sends its body.
    AWAITING_100 = enum.auto()
    #: The head has been sent and the body moves.
    SENDING = enum.auto()
    #: All of the request has been sent.
    SENT = enum.auto()


class ResponseState(enum.IntEnum):
    """How far the response has come from the next hop."""

    NONE = enum.auto()
    #: One or more 1xx have come.
    INTERIM = enum.auto()
    #: The final head has come and the body moves.
    FLOWING = enum.auto()
    #: The exchange is over: complete, switched to a tunnel, failed or abandoned.
    DONE = enum.auto()


class Event(enum.IntEnum):
    """What happens to an exchange."""

    #: The head of a request without a body has been sent.
    HEAD_SENT = enum.auto()
    #: The head of a request with a body has been sent.
    HEAD_SENT_BEFORE_BODY = enum.auto()
    #: The same, and the client has said ``Expect: 100-continue``.
    HEAD_SENT_EXPECTING = enum.auto()
    #: The client has sent a piece of its body.
    BODY = enum.auto()
    #: The client has sent all of its body.
    BODY_END = enum.auto()
    #: 100 has come.
    CONTINUE = enum.auto()
    #: Another 1xx has come: no permission to send the body (RFC 9110 section 15.2.1).
    INTERIM = enum.auto()
    #: The final response's head has come.
    RESPONSE_HEAD = enum.auto()
    #: All of the response has come.
    RESPONSE_END = enum.auto()
    #: 101 has come and is taken.
    SWITCH = enum.auto()
    #: A kept connection has died before it answered; the request goes out again on another.
    STALE = enum.auto()
    #: The exchange has failed, or the client has gone.
    ABANDON = enum.auto()


CONNECTING, AWAITING_100, SENDING, SENT = RequestState
NONE, INTERIM, FLOWING, DONE = ResponseState

#: In these states of the request its body has somewhere to go.
TAKES_BODY: Final = frozenset({AWAITING_100, SENDING})


@dataclass(frozen=True, slots=True)
class Transition:
    """What one event does.

    :ivar request: the request's next state by its present one; the event is illegal in any other.
    :ivar response: the same of the response.
    """

    request: Mapping[RequestState, RequestState]
    response: Mapping[ResponseState, ResponseState]


_STAYS: Final = {state: state for state in RequestState}
_HEAD_IS_OUT: Final = {state: state for state in RequestState if state is not CONNECTING}
_NO_RESPONSE: Final = {NONE: NONE}
_BEFORE_THE_END: Final = {NONE: NONE, INTERIM: INTERIM, FLOWING: FLOWING}
_INTERIM_COMES: Final = {NONE: INTERIM, INTERIM: INTERIM}

TRANSITIONS: Final[Mapping[Event, Transition]] = {
    Event.HEAD_SENT: Transition({CONNECTING: SENT}, _NO_RESPONSE),
    Event.HEAD_SENT_BEFORE_BODY: Transition({CONNECTING: SENDING}, _NO_RESPONSE),
    Event.HEAD_SENT_EXPECTING: Transition({CONNECTING: AWAITING_100}, _NO_RESPONSE),
    # A client need not wait for the 100 forever (RFC 9110 section 10.1.1).
    Event.BODY: Transition({AWAITING_100: SENDING, SENDING: SENDING}, _BEFORE_THE_END),
    Event.BODY_END: Transition({AWAITING_100: SENT, SENDING: SENT}, _BEFORE_THE_END),
    Event.CONTINUE: Transition({AWAITING_100: SENDING, SENDING: SENDING, SENT: SENT}, _INTERIM_COMES),
    Event.INTERIM: Transition(_HEAD_IS_OUT, _INTERIM_COMES),
    Event.RESPONSE_HEAD: Transition(_HEAD_IS_OUT, {NONE: FLOWING, INTERIM: FLOWING}),
    Event.RESPONSE_END: Transition(_HEAD_IS_OUT, {FLOWING: DONE}),
    Event.SWITCH: Transition({SENT: SENT}, {NONE: DONE, INTERIM: DONE}),
    Event.STALE: Transition({SENT: CONNECTING}, _NO_RESPONSE),
    Event.ABANDON: Transition(_STAYS, {state: DONE for state in ResponseState}),
}


class Limit(enum.Enum):
    """Which of the configured times bounds a pair of states."""

    #: ``limits.response_timeout``, since all of the request was here; no progress extends it.
    RESPONSE = enum.auto()
    #: ``limits.idle_timeout`` since something last moved; ``limits.tunnel_timeout`` for an event stream.
    IDLE = enum.auto()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pair of states may last.

    :ivar late: the failure when the time is over.
    :ivar held_back: the failure instead when the receiving end has not taken what it was sent; None when that end is
        the client, which has then stopped reading its response.
    :ivar judges_rate: the client must also keep ``limits.min_body_rate`` on average.
    """

    limit: Limit
    late: Kind
    held_back: Kind | None
    judges_rate: bool = False


_AWAITS_RESPONSE: Final = Patience(Limit.RESPONSE, Kind.HTTP_RESPONSE_TIMEOUT, Kind.HTTP_RESPONSE_TIMEOUT)
_UPLOADS: Final = Patience(Limit.IDLE, Kind.REQUEST_TIMEOUT, Kind.HTTP_RESPONSE_TIMEOUT, judges_rate=True)
# How fast the request's body comes may now depend on the response, so its rate is not judged.
_DOWNLOADS: Final = Patience(Limit.IDLE, Kind.HTTP_RESPONSE_INCOMPLETE, None)

#: Pairs that are not here have no limit of the exchange's: while it connects, the pool's connect timeout holds.
PATIENCE: Final[Mapping[tuple[RequestState, ResponseState], Patience]] = {
    (AWAITING_100, NONE): _AWAITS_RESPONSE,
    (AWAITING_100, INTERIM): _AWAITS_RESPONSE,
    (SENT, NONE): _AWAITS_RESPONSE,
    (SENT, INTERIM): _AWAITS_RESPONSE,
    (SENDING, NONE): _UPLOADS,
    (SENDING, INTERIM): _UPLOADS,
    (AWAITING_100, FLOWING): _DOWNLOADS,
    (SENDING, FLOWING): _DOWNLOADS,
    (SENT, FLOWING): _DOWNLOADS,
}
