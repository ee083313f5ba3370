"""Upstream connections that belong to one client, because a login on them counts for the connection.

NTLM and Negotiate authenticate a connection and not a request (RFC 4559 section 6): after the handshake the server
takes every request on it for that user's. So a connection on which a request carried such credentials, or a response
offered to take them, is pinned to the client connection that it was used for. It serves no other client, never returns
to the pool, and ends with that client's connection, or when it is idle and the pool has no other room. Every hop of
ours sees the same fields and decides alike, so one client connection has one connection of its own on each hop.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from nitroproxy.http1.headers import members
from nitroproxy.http1.messages import Fields
from nitroproxy.proxy.upstream import Pool, UpstreamConnection

#: Schemes that authenticate a connection; Kerberos, CredSSP and Nego2 are Negotiate's kin (Windows Remote Management,
#: Exchange).
_SCHEMES: Final = frozenset({b"ntlm", b"negotiate", b"nego2", b"kerberos", b"credssp"})
#: Connections that one client may have of its own: one for each next hop that it has logged in to.
_MOST: Final = 8


def carries_login(fields: Fields) -> bool:
    """Whether a request's *fields* log a connection in."""
    return any(_names_scheme(value) for value in fields.values.get(b"authorization", ()))


def offers_login(fields: Fields) -> bool:
    """Whether a response's *fields* offer to log the connection in, go on with that, or say that it is logged in."""
    values = fields.values
    if b"persistent-auth" in values and any(value.lower() == b"true" for value in members(values[b"persistent-auth"])):
        return True
    return any(_names_scheme(member) for member in members(values.get(b"www-authenticate", ())))


def _names_scheme(credentials: bytes) -> bool:
    """Whether *credentials* or a challenge begin with one of the schemes (RFC 9110 section 11)."""
    return credentials.split(None, 1)[0].lower() in _SCHEMES if credentials else False


class PinnedConnections:
    """The connections of one client, each without an exchange at present. The client's connection owns it."""

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: dict[Hashable, UpstreamConnection] | None = None

    def take(self, pool: Pool, key: Hashable) -> UpstreamConnection | None:
        """The client's own connection to *key*; None when it has none that can be used.

        :param pool: the one in force: a connection of another, which a reload has retired, is ended.
        """
        connection = self._connections.pop(key, None) if self._connections else None
        if connection is not None:
            connection.pool.withdraw(connection)
        if connection is None or (connection.usable and connection.pool is pool):
            return connection
        connection.close()
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        """Keep *connection*, whose exchange is over, for this client; the oldest gives way when there are too many."""
        if self._connections is None:
            self._connections = {}
        self._connections[connection.key] = connection
        connection.pool.pinned(connection)
        if len(self._connections) > _MOST:
            self._connections.pop(next(iter(self._connections))).close()

    def end(self) -> None:
        """End all: the client has gone."""
        connections, self._connections = self._connections, None
        for connection in (connections or {}).values():
            connection.close()
