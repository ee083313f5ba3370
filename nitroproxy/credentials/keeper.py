"""Keeps the role's credentials, and asks for new ones in time.

Nothing is asked before somebody wants them. What is kept is given out while it is new enough; one question serves all
who wait, and while the metadata service fails the old ones are given as long as they are valid.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from nitroproxy.credentials.document import Credentials, CredentialsUnavailable

_log: Final = Logger()

#: Seconds for which credentials are given without asking again: the role, or its session, may have been replaced.
_FRESH: Final = 300.0
#: Seconds before their end from which on new ones are asked for. The metadata service has them 5 minutes before.
_RENEW: Final = 600.0
#: Seconds between two questions when the first one brought nothing new.
_PAUSE: Final = 2.0


class Keeper:
    """The credentials of one role.

    :param ask: asks the metadata service; raises `CredentialsUnavailable`.
    :param now: the time of day, in seconds since the epoch.
    :param seconds: a clock that is never set.
    """

    def __init__(
        self,
        ask: Callable[[], Coroutine[Any, Any, Credentials]],
        now: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._now = now
        self._seconds = seconds
        self._kept: Credentials | None = None
        self._asked_at: float | None = None
        self._failure: CredentialsUnavailable | None = None
        self._waiting: list[Deferred[None]] = []

    async def get(self) -> Credentials:
        """Credentials that have not expired.

        :raises CredentialsUnavailable: when there are none.
        """
        if self._due():
            await self._renew()
        kept = self._kept
        if kept is not None and kept.expires_at > self._now():
            return kept
        self._kept = None
        raise self._failure or CredentialsUnavailable("the metadata service has only credentials that have expired")

    @property
    def trouble(self) -> str:
        """Why the last question failed; empty when it did not."""
        return str(self._failure) if self._failure is not None else ""

    def _due(self) -> bool:
        if self._asked_at is None:
            return True
        age = self._seconds() - self._asked_at
        left = self._kept.expires_at - self._now() if self._kept is not None else 0.0
        new_enough = self._failure is None and left > _RENEW and age < _FRESH
        return not new_enough and age >= _PAUSE

    def _renew(self) -> Deferred[None]:
        """Fires when a question has been answered, or has failed."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._ask()).addCallbacks(self._take, self._fail).addBoth(self._tell)
        return waiting

    def _take(self, credentials: Credentials) -> None:
        if self._failure is not None:
            _log.info("the metadata service has credentials again", event="credentials_available")
        self._kept, self._failure = credentials, None

    def _fail(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, CredentialsUnavailable):
            _log.failure("asking for credentials failed", failure, event="callback_failed")
            error = CredentialsUnavailable("internal error: see the log of nitroproxy-credentials")
        if self._failure is None:
            _log.warn("no new credentials: {reason}", event="credentials_unavailable", reason=str(error))
        self._failure = error

    def _tell(self, _: object) -> None:
        self._asked_at = self._seconds()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)
