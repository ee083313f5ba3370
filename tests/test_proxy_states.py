"""The tables of `nitroproxy.proxy.states`: what is legal, what can be reached, and that everything has its patience."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.proxy.states import (
    AWAITING_100,
    CONNECTING,
    DONE,
    FLOWING,
    INTERIM,
    NONE,
    PATIENCE,
    SENDING,
    SENT,
    TAKES_BODY,
    TRANSITIONS,
    Event,
    Limit,
    RequestState,
    ResponseState,
)

Pair = tuple[RequestState, ResponseState]


def after(event: Event, pair: Pair) -> Pair | None:
    """The states that *event* leads to from *pair*; None when it is illegal there."""
    transition = TRANSITIONS[event]
    if pair[0] not in transition.request or pair[1] not in transition.response:
        return None
    return transition.request[pair[0]], transition.response[pair[1]]


def reachable() -> set[Pair]:
    """Every pair that an exchange can be in."""
    found: set[Pair] = set()
    to_see: list[Pair] = [(CONNECTING, NONE)]
    while to_see:
        pair = to_see.pop()
        if pair not in found:
            found.add(pair)
            to_see += [following for event in Event if (following := after(event, pair)) is not None]
    return found


class TransitionTests(SynchronousTestCase):
    """Transcripts of exchanges, as events."""

    def run_through(self, *events: Event) -> list[Pair | None]:
        pair: Pair | None = (CONNECTING, NONE)
        seen = []
        for event in events:
            assert pair is not None
            pair = after(event, pair)
            seen.append(pair)
        return seen

    def test_get(self) -> None:
        """A request without a body: sent at once, then its response."""
        seen = self.run_through(Event.HEAD_SENT, Event.RESPONSE_HEAD, Event.RESPONSE_END)
        self.assertEqual(seen, [(SENT, NONE), (SENT, FLOWING), (SENT, DONE)])

    def test_upload(self) -> None:
        """A body, an interim response in between, and the response."""
        seen = self.run_through(
            Event.HEAD_SENT_BEFORE_BODY, Event.BODY, Event.INTERIM, Event.BODY_END, Event.RESPONSE_HEAD
        )
        expected = [(SENDING, NONE), (SENDING, NONE), (SENDING, INTERIM), (SENT, INTERIM), (SENT, FLOWING)]
        self.assertEqual(seen, expected)

    def test_expectation(self) -> None:
        """Only the 100, or the client's own decision, ends the wait for the 100."""
        expecting: Pair = (AWAITING_100, NONE)
        self.assertEqual(after(Event.INTERIM, expecting), (AWAITING_100, INTERIM))
        self.assertEqual(after(Event.CONTINUE, expecting), (SENDING, INTERIM))
        self.assertEqual(after(Event.BODY, expecting), (SENDING, NONE))
        self.assertEqual(after(Event.BODY_END, expecting), (SENT, NONE))
        self.assertEqual(after(Event.RESPONSE_HEAD, expecting), (AWAITING_100, FLOWING))

    def test_sent_again(self) -> None:
        """A request goes out again only when all of it was sent and nothing at all has come back."""
        legal = {pair for pair in reachable() if after(Event.STALE, pair) is not None}
        self.assertEqual(legal, {(SENT, NONE)})

    def test_switch(self) -> None:
        """A 101 needs a complete request and no final response."""
        legal = {pair for pair in reachable() if after(Event.SWITCH, pair) is not None}
        self.assertEqual(legal, {(SENT, NONE), (SENT, INTERIM)})

    def test_abandoned_anywhere(self) -> None:
        """An exchange can be abandoned in each of its states, and nothing but that happens to one that is over."""
        for pair in reachable():
            self.assertEqual(after(Event.ABANDON, pair), (pair[0], DONE))
            if pair[1] is DONE:
                self.assertEqual([event for event in Event if after(event, pair) is not None], [Event.ABANDON])

    def test_no_response_before_the_head(self) -> None:
        """While there is no connection, nothing of a response can come."""
        self.assertEqual({pair[1] for pair in reachable() if pair[0] is CONNECTING}, {NONE, DONE})

    def test_complete(self) -> None:
        """Each event is in the table, each state can be reached, and each event is legal somewhere."""
        self.assertEqual(set(TRANSITIONS), set(Event))
        self.assertEqual({pair[0] for pair in reachable()}, set(RequestState))
        self.assertEqual({pair[1] for pair in reachable()}, set(ResponseState))
        for event in Event:
            self.assertTrue(any(after(event, pair) is not None for pair in reachable()), event)


class PatienceTests(SynchronousTestCase):
    """How long each pair of states may last."""

    def test_every_pair_is_bounded(self) -> None:
        """Every pair that can be reached has its patience, except while connecting and at the end; no other has."""
        bounded = {pair for pair in reachable() if pair[0] is not CONNECTING and pair[1] is not DONE}
        self.assertEqual(set(PATIENCE), bounded)

    def test_who_waits_for_whom(self) -> None:
        """Until a final response the limit is response_timeout, unless the body moves; only then is its rate judged."""
        for (request, response), patience in PATIENCE.items():
            moves = request is SENDING or response is FLOWING
            self.assertIs(patience.limit, Limit.IDLE if moves else Limit.RESPONSE, (request, response))
            self.assertIs(patience.judges_rate, request is SENDING and response is not FLOWING)

    def test_blame(self) -> None:
        """A client is blamed only where it is its turn, and never when the next hop holds it back."""
        blamed = {pair for pair, patience in PATIENCE.items() if patience.late is Kind.REQUEST_TIMEOUT}
        self.assertEqual(blamed, {(SENDING, NONE), (SENDING, INTERIM)})
        self.assertNotIn(Kind.REQUEST_TIMEOUT, {patience.held_back for patience in PATIENCE.values()})

    def test_body(self) -> None:
        """A body has somewhere to go between its head and its end."""
        self.assertEqual(TAKES_BODY, {state for state in RequestState if state not in (CONNECTING, SENT)})
