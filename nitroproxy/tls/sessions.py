"""TLS sessions for resumption: the last one with each destination, as long as the verdict on its certificate holds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from nitroproxy.tls.verification import Clocks, Verdict

#: Sessions kept, and bytes that they may hold: of each the chain as it was sent, and the ticket and the rest.
_SESSIONS: Final = 1024
_BYTES: Final = 16 << 20
_REST: Final = 4096


@dataclass(frozen=True)
class Resumable:
    """A session, and the verdict on the certificate of the full handshake that it goes back to."""

    session: SSL.Session
    verdict: Verdict


class Sessions:
    """The sessions of one client.

    They are kept by host and port: a client certificate may belong to one port alone, and a session carries it on.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._kept: OrderedDict[tuple[str, int], Resumable] = OrderedDict()
        self._bytes = 0

    def find(self, host: str, port: int) -> Resumable | None:
        """What can be resumed with *host* and *port*. OpenSSL verifies no certificate where a session is resumed, so
        an expired verdict ends it."""
        found = self._kept.get((host, port))
        if found is not None and not self._clocks.holds(found.verdict):
            self._forget((host, port))
            return None
        return found

    def keep(self, host: str, port: int, connection: SSL.Connection, verdict: Verdict) -> None:
        """Keep *connection*'s session for the next one, if it has one.

        :param verdict: of its full handshake, or of the session that it resumed: a certificate is as old as that.
        """
        session = connection.get_session()
        if session is None:
            return
        if (host, port) in self._kept:
            self._forget((host, port))
        self._kept[host, port] = Resumable(session, verdict)
        self._bytes += verdict.size + _REST
        while len(self._kept) > _SESSIONS or self._bytes > _BYTES:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, int]) -> None:
        self._bytes -= self._kept.pop(key).verdict.size + _REST
