"""Connections accepted above the limit, for the proxy's own pages only: health must be seen when it matters most.

Each has a second for its request's head, and a few more for the whole answer. When one more comes, the oldest that has
not sent a complete head gives way: idle connections, however many, keep no health check out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.interfaces import AcceptedConnection

#: Connections in the reserve of one listener.
SIZE: Final = 64
#: Seconds for a complete head; then for the response to be read to its end.
HEAD_TIMEOUT: Final = 1.0
_ANSWER_TIMEOUT: Final = 5.0


class _Member:
    """A connection in the reserve.

    :ivar since: when it came, in seconds.
    :ivar has_head: it has sent a request.
    """

    __slots__ = ("connection", "deadline", "has_head", "since")

    def __init__(self, connection: AcceptedConnection, since: float, deadline: Deadline) -> None:
        self.connection = connection
        self.since = since
        self.deadline = deadline
        self.has_head = False


class Reserve:
    """The reserve of one listener.

    :param turn_away: called with a connection that leaves the reserve because no complete head has come in time.
    :param size: how many there may be.
    """

    def __init__(
        self, deadlines: Deadlines, turn_away: Callable[[AcceptedConnection], object], size: int = SIZE
    ) -> None:
        self._deadlines = deadlines
        self._turn_away = turn_away
        self._size = size
        #: In order of age.
        self._members: dict[object, _Member] = {}

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    def add(self, connection: AcceptedConnection) -> bool:
        """Take *connection* in, if need be for the oldest without a complete head.

        :returns: whether it was: not when all of the reserve is being answered.
        """
        if len(self._members) >= self._size and not self.make_way():
            return False
        deadline = self._deadlines.after(HEAD_TIMEOUT, lambda: self._late(connection))
        self._members[connection] = _Member(connection, self._deadlines.seconds(), deadline)
        return True

    def make_way(self, age: float = 0.0) -> bool:
        """Turn away the oldest connection without a complete head; whether there was one.

        :param age: the seconds that it must have had.
        """
        latest = self._deadlines.seconds() - age
        for member in self._members.values():
            if not member.has_head and member.since <= latest:
                self._late(member.connection)
                return True
        return False

    def head_complete(self, connection: AcceptedConnection) -> None:
        """*connection* has sent a request; nothing to do if it is not in the reserve."""
        member = self._members.get(connection)
        if member is not None:
            member.has_head = True
            member.deadline.cancel()
            member.deadline = self._deadlines.after(_ANSWER_TIMEOUT, connection.abort)

    def leave(self, connection: object) -> None:
        """*connection* has ended or has a place now; nothing to do if it is not in the reserve."""
        member = self._members.pop(connection, None)
        if member is not None:
            member.deadline.cancel()

    def _late(self, connection: AcceptedConnection) -> None:
        self.leave(connection)
        self._turn_away(connection)
