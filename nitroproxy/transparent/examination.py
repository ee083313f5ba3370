"""Examines from the daemon's side whether connections of applications come here, for its health page: without root,
which alone could read routes and rules.

A connection to an address that only routes and rules together lead to the listener, which closes it; and a question to
the name server, for a name that costs no address.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.names import dns

from nitroproxy.telemetry.health import Check
from nitroproxy.transparent.names import NameTable
from nitroproxy.transparent.ranges import PROBE_V4, PROBE_V6

#: Seconds for each part.
_TIMEOUT: Final = 0.5
#: The port does not matter; nobody listens on it.
_PORT: Final = 1
_DNS: Final = ("127.0.0.1", 53)
#: The part of the names from which on there is a warning.
_NEARLY_FULL: Final = 0.9


class Examination:
    """Examines when it is called.

    :param table: the names that have an address; None: names are not answered.
    :param ipv6: whether IPv6 connections come here, too.
    """

    def __init__(self, reactor: Any, table: NameTable, *, dns: bool, ipv6: bool) -> None:
        self._reactor = reactor
        self._table = table
        self._dns = dns
        self._ipv6 = ipv6

    async def __call__(self) -> Check:
        """The check."""
        wrong = await self._connections()
        if self._dns:
            wrong += await self._names()
        if wrong:
            return Check("fail", "; ".join(wrong))
        names = self._table.count()
        if names > self._table.most * _NEARLY_FULL:
            return Check("warn", f"{names} of {self._table.most} names have an address, and none is given away")
        return Check("pass", f"{names} of {self._table.most} names")

    async def _connections(self) -> list[str]:
        wrong = []
        ways: list[tuple[str, Any, str]] = [("IPv4", TCP4ClientEndpoint, str(PROBE_V4))]
        if self._ipv6:
            ways.append(("IPv6", TCP6ClientEndpoint, str(PROBE_V6)))
        for family, endpoint, address in ways:
            connecting: Deferred[Any] = connectProtocol(
                endpoint(self._reactor, address, _PORT, timeout=_TIMEOUT), Protocol()
            )
            try:
                connected = await connecting
            except Exception as error:
                if getattr(error, "osError", None) == errno.ECONNRESET:
                    continue  # It has come to another process, which was faster to close it than this one to look.
                wrong.append(f"{family} connections do not come here (routes, rules): {error}")
            else:
                connected.transport.abortConnection()
        return wrong

    async def _names(self) -> list[str]:
        asking = dns.DNSDatagramProtocol(None, reactor=self._reactor)
        port = self._reactor.listenUDP(0, asking, interface=_DNS[0])
        try:
            answer = await asking.query(_DNS, [dns.Query(b"localhost")], timeout=_TIMEOUT)
            return [] if answer.answers else [f"DNS answers with code {answer.rCode}"]
        except Exception as error:
            return [f"DNS does not answer: {error or type(error).__name__}"]
        finally:
            await port.stopListening()
