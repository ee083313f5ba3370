"""The enclave's log on its way to the host: an enclave has no disk, and in production no console either.

Lines wait in a bounded ring; when it is full the oldest are dropped and counted. They are sent in batches, and only
what the host has acknowledged leaves the ring, so a host daemon that is restarted misses nothing that the ring could
hold. A batch whose acknowledgement got lost is sent again; its numbers let the host leave out what it has.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.logs import json_line

_log: Final = Logger()

#: Seconds over which lines are gathered.
_GATHER: Final = 0.25
#: Seconds between attempts when the host does not take them: at first, and at most.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
#: Seconds that the host may take for a batch.
_TIMEOUT: Final = 5.0
#: Bytes of what it may say about it.
_LONGEST_ANSWER: Final = 4096
#: Bytes of one batch, at most, and of one line.
BATCH_BYTES: Final = 256 * 1024
_LINE_BYTES: Final = 32 * 1024


def post_to(pool: Pool, deadlines: Deadlines) -> Callable[[str, int, bytes], Awaitable[None]]:
    """What sends a batch to the host's log listener, to which *pool* leads."""

    async def post(session: str, first: int, lines: bytes) -> None:
        headers = [(b"Log-Session", session.encode("ascii")), (b"Log-First", b"%d" % first)]
        status, _ = await fetch(pool, "logs", b"/logs", deadlines, _TIMEOUT, _LONGEST_ANSWER, lines, headers)
        if status != 204:
            raise ProxyError(Kind.HTTP_PROTOCOL_ERROR, f"the host's log listener answered {status}")

    return post


class LogShipper:
    """Sends log lines to the host.

    :param post: sends a batch: the sender's session, the number of its first line, and the lines; raises `ProxyError`
        when the host does not have it.
    :param most: lines that may wait.
    :param most_bytes: bytes of all that wait; the oldest lines are dropped for a new one.
    :ivar dropped: lines that were lost, in all.
    """

    def __init__(
        self,
        post: Callable[[str, int, bytes], Awaitable[None]],
        clock: IReactorTime,
        most: int = 20_000,
        most_bytes: int = 8 << 20,
    ) -> None:
        self.dropped = 0
        self._post = post
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._session = os.urandom(8).hex()
        self._ring: deque[bytes] = deque()
        self._first = 0  # the number of the ring's oldest line
        self._later: IDelayedCall | None = None
        self._sending = False
        self._waiting: list[Deferred[None]] = []
        self._pause = 0.0

    def take(self, fields: Mapping[str, Any]) -> None:
        """Take one event. Never blocks."""
        line = json_line(fields)
        if len(line) > _LINE_BYTES:
            line = json_line({**fields, "message": str(fields["message"])[:1024], "failure": "left out: too long"})
        while self._ring and (len(self._ring) >= self._most or self._bytes + len(line) > self._most_bytes):
            self._drop_first()
            self.dropped += 1
        self._ring.append(line)
        self._bytes += len(line)
        if self._later is None and not self._sending:
            self._later = self._clock.callLater(_GATHER, self._begin)

    def flush(self) -> Deferred[None]:
        """Send what waits, now; fires when that has been tried. A batch under way is waited for, and what came after
        it is sent too."""
        if self._sending:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            return done
        if self._later is not None:
            self._later.cancel()
            self._later = None
        return Deferred.fromCoroutine(self._send_all())

    def stop(self) -> None:
        """Send nothing more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._sending = True

    def _begin(self) -> None:
        self._later = None
        Deferred.fromCoroutine(self._send_all())

    async def _send_all(self) -> None:
        if self._sending:
            return
        self._sending = True
        try:
            while self._ring:
                await self._send_batch()
        except ProxyError as error:
            if not self._pause:
                _log.warn("the host does not take the log: {detail}", event="log_not_taken", detail=error.detail)
            self._pause = min(self._pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE)
            self._later = self._clock.callLater(self._pause, self._begin)
        else:
            if self._pause:
                self._pause = 0.0
                _log.info("the host takes the log again", event="log_taken_again", dropped=self.dropped)
        finally:
            self._sending = False
            if self._ring and self._later is None:
                self._later = self._clock.callLater(_GATHER, self._begin)
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    async def _send_batch(self) -> None:
        batch: list[bytes] = []
        size = 0
        for line in self._ring:
            size += len(line)
            if size > BATCH_BYTES:
                break
            batch.append(line)
        first = self._first
        await self._post(self._session, first, b"".join(batch))
        # Meanwhile the ring may have dropped some of them.
        while self._ring and self._first < first + len(batch):
            self._drop_first()

    def _drop_first(self) -> None:
        self._bytes -= len(self._ring.popleft())
        self._first += 1
