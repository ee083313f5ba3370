"""The enclave's log on its way to the host: an enclave has no disk, and in production no console either.

Lines wait in a ring that is bounded in bytes; when it is full the oldest are dropped and counted. They are sent in
batches, and a line leaves the ring only when the host has acknowledged it, so a host daemon that restarts misses
nothing that the ring can hold. A batch whose acknowledgement got lost is sent again; its numbers tell the host which
lines it has already. No line is longer than `LINE_BYTES`, so a batch always holds at least one.
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
from nitroproxy.telemetry.logs import json_line, shortened
from nitroproxy.telemetry.sink import QUEUE_BYTES, size_of

_log: Final = Logger()

#: Seconds over which lines are gathered.
_GATHER: Final = 0.25
#: Seconds between attempts when the host does not take them: at first, and at most.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
#: Seconds that the host may take for a batch, and for all of the last ones.
_TIMEOUT: Final = 5.0
_LAST_LINES: Final = 10.0
#: Bytes of its answer that are read.
_LONGEST_ANSWER: Final = 4096
#: Bytes of one batch, at most, and of one line.
BATCH_BYTES: Final = 256 * 1024
LINE_BYTES: Final = 32 * 1024


def post_to(pool: Pool, deadlines: Deadlines) -> Callable[[str, int, bytes], Awaitable[None]]:
    """What sends a batch to the host's log listener, to which *pool* leads."""

    async def post(session: str, first: int, lines: bytes) -> None:
        headers = [(b"Log-Session", session.encode("ascii")), (b"Log-First", b"%d" % first)]
        status, _ = await fetch(
            pool, "logs", b"/logs", deadlines, _TIMEOUT, _LONGEST_ANSWER, method=b"POST", body=lines, headers=headers
        )
        if status != 204:
            raise ProxyError(Kind.HTTP_PROTOCOL_ERROR, f"the host's log listener answered {status}")

    return post


class LogShipper:
    """Sends log lines to the host.

    :param post: sends a batch: the sender's session, the number of its first line, and the lines; raises `ProxyError`
        when the host does not have it.
    :param most: bytes of memory for the lines that wait.
    :ivar dropped: lines that were lost, in all.
    """

    def __init__(
        self, post: Callable[[str, int, bytes], Awaitable[None]], clock: IReactorTime, most: int = QUEUE_BYTES
    ) -> None:
        self.dropped = 0
        self._post = post
        self._clock = clock
        self._most = most
        self._session = os.urandom(8).hex()
        self._ring: deque[bytes] = deque()
        self._ring_bytes = 0
        self._first = 0  # The number of the ring's oldest line.
        self._later: IDelayedCall | None = None
        self._sending = False
        self._stopped = False
        self._pause = 0.0
        #: Fired when the lines that are being sent have been, or that has failed.
        self._flushing: list[Deferred[None]] = []

    def take(self, fields: Mapping[str, Any]) -> None:
        """Take one event. Never blocks."""
        line = json_line(fields)
        if len(line) > LINE_BYTES:
            line = json_line(shortened(fields))
        self._ring.append(line)
        self._ring_bytes += size_of(line)
        while self._ring_bytes > self._most:
            self._drop_oldest()
            self.dropped += 1
        if not self._sending:
            self._send_later(_GATHER)

    def flush(self) -> Deferred[None]:
        """Send what waits, now. Called once, when no more lines come.

        :returns: fires when the host has all lines, when it has failed to take a batch, or after `_LAST_LINES` seconds.
        """
        flushed: Deferred[None] = Deferred()
        flushed.addTimeout(_LAST_LINES, self._clock, onTimeoutCancel=lambda outcome, seconds: None)
        self._flushing.append(flushed)
        if not self._sending:
            self._begin()
        return flushed

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._cancel_later()

    def _send_later(self, seconds: float) -> None:
        if self._later is None and not self._stopped:
            self._later = self._clock.callLater(seconds, self._begin)

    def _cancel_later(self) -> None:
        later, self._later = self._later, None
        if later is not None and later.active():
            later.cancel()

    def _begin(self) -> None:
        self._cancel_later()
        Deferred.fromCoroutine(self._send_all())

    async def _send_all(self) -> None:
        self._sending = True
        try:
            while self._ring and not self._stopped:
                await self._send_batch()
        except ProxyError as error:
            if not self._pause:
                _log.warn("the host does not take the log: {detail}", event="log_not_taken", detail=error.detail)
            self._back_off()
        except Exception:
            if not self._pause:
                _log.failure("internal error: the log cannot be sent", event="log_not_taken")
            self._back_off()
        else:
            if self._pause:
                self._pause = 0.0
                _log.info("the host takes the log again", event="log_taken_again", dropped=self.dropped)
        finally:
            self._rest()

    def _rest(self) -> None:
        """Sending is over for now: tell those who wait for it, and go on later with what has come since."""
        self._sending = False
        if self._ring:
            self._send_later(self._pause or _GATHER)
        flushing, self._flushing = self._flushing, []
        for flushed in flushing:
            if not flushed.called:
                flushed.callback(None)

    def _back_off(self) -> None:
        self._pause = min(self._pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE)

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
        # The ring may have dropped some of them since.
        while self._ring and self._first < first + len(batch):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._ring_bytes -= size_of(self._ring.popleft())
        self._first += 1
