"""Names looked up by c-ares: in /etc/hosts and by the name servers of /etc/resolv.conf.

The system's own resolver (getaddrinfo) blocks a thread until it has an answer and cannot be stopped: a few dozen slow
names held every thread. c-ares runs on the reactor and can be cancelled. It reads nsswitch.conf (the order of files and
dns), resolv.conf (servers, search, ndots, timeout, attempts, rotate, use-vc) and RES_OPTIONS, follows CNAMEs, asks for
both families at once, turns to TCP when an answer was cut off, goes on to the next server when one fails, and takes an
answer only with the right id, port, server and question. twisted.names does about half of that.

Each lookup has a channel of its own, for about 0.4 ms: it can be cancelled without the others, it asks from a fresh
port, a changed resolv.conf or hosts file counts from the next lookup on, and nothing that one client had looked up is
kept for another (a channel that lives on has a cache without a bound in bytes). The price is that the hosts file is
read each time: 25 ms if it has 10,000 lines.

Not done: DNS 0x20, because some servers do not repeat the case of a question; nsswitch.conf's sources beyond files and
dns (LDAP, mDNS). Knows nothing of what the addresses are for.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

import pycares
from pycares import errno
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError

#: Addresses of one family that are used; the others of a longer answer (64 KiB hold 4,000) are neither checked nor
#: dialled.
MOST_ADDRESSES: Final = 32
#: Seconds until c-ares is asked again when it gives no time for a lookup that is not over.
_SOON: Final = 0.01
#: ARES_AI_NOSORT (ares.h; pycares does not name it): leave the addresses in the order of the answer. To sort them
#: would cost a socket each.
_FLAGS = 1 << 7

#: The addresses and c-ares's error, one of them None.
_Outcome = tuple[pycares.AddrInfoResult | None, int | None]

#: The name servers' word that there is nothing; any other error may be gone with the next lookup.
_NOTHING: Final = {
    errno.ARES_ENOTFOUND: "no such name",
    errno.ARES_ENODATA: "the name has no address",
    errno.ARES_EBADNAME: "this cannot be a name in the DNS",
}
_TROUBLE: Final = {
    errno.ARES_ETIMEOUT: "no name server answered",
    errno.ARES_ESERVFAIL: "the name servers failed (SERVFAIL)",
    errno.ARES_EREFUSED: "the name servers refused to answer (REFUSED)",
    errno.ARES_ENOTIMP: "the name servers do not answer such questions (NOTIMP)",
    errno.ARES_EFORMERR: "the name servers took the question for malformed (FORMERR)",
    errno.ARES_EBADRESP: "the answer of the name servers is malformed",
    errno.ARES_ECONNREFUSED: "the name servers could not be reached",
}


class Names:
    """Looks names up as this machine is configured to.

    :param resolv_conf: the path of the resolver's configuration; None: the system's.
    """

    def __init__(self, reactor: Any, resolv_conf: str | None = None) -> None:
        self._reactor = reactor
        self._resolv_conf = resolv_conf

    def look_up(self, host: str) -> Deferred[Sequence[str]]:
        """The addresses of *host* as text, each once, IPv6 before IPv4; at most `MOST_ADDRESSES` of each.

        May be cancelled: the questions under way are given up and their sockets closed at once. The caller bounds the
        time; c-ares itself gives up after resolv.conf's attempts.

        :returns: fails with `DNSLookupError` when the hosts file and the name servers know no address, and with
            `ProxyError` (`Kind.DNS_ERROR`, `Kind.DNS_TIMEOUT`) when the name servers give no usable answer.
        """
        lookup = _Lookup(self._reactor, host)
        try:
            lookup.start(self._resolv_conf)
        except pycares.AresError as error:
            detail = f"{host} could not be looked up: c-ares cannot start: {error}"
            lookup.result.errback(Failure(ProxyError(Kind.DNS_ERROR, detail)))
        return lookup.result


def look_up(host: str, timeout: float = 5.0) -> list[str]:
    """The same for programs without a reactor: blocks.

    :param timeout: seconds.
    :raises DNSLookupError: when there is no address.
    :raises ProxyError: when there is no usable answer.
    """
    outcomes: list[_Outcome] = []
    channel = pycares.Channel()
    channel.getaddrinfo(
        host, None, type=socket.SOCK_STREAM, flags=_FLAGS, callback=lambda *outcome: outcomes.append(outcome)
    )
    channel.wait(timeout)
    channel.close()
    return _addresses(host, *(outcomes[0] if outcomes else (None, errno.ARES_ETIMEOUT)))


def _addresses(host: str, found: pycares.AddrInfoResult | None, error: int | None) -> list[str]:
    if found is None:
        if error in _NOTHING:
            raise DNSLookupError(_NOTHING[error])
        kind = Kind.DNS_TIMEOUT if error == errno.ARES_ETIMEOUT else Kind.DNS_ERROR
        why = _TROUBLE.get(error or 0, f"c-ares's error {error}")
        raise ProxyError(kind, f"{host} could not be resolved: {why}")
    families: dict[int, dict[str, None]] = {socket.AF_INET6: {}, socket.AF_INET: {}}
    for node in found.nodes:
        family = families[node.family]
        if len(family) < MOST_ADDRESSES:
            address: Any = node.addr[0]
            family[address.decode("ascii")] = None
    return [address for family in families.values() for address in family]


class _Lookup:
    """One name asked for, on a channel of its own.

    :ivar result: see `Names.look_up`.
    """

    def __init__(self, reactor: Any, host: str) -> None:
        self.result: Deferred[Sequence[str]] = Deferred(lambda _: self._end())
        self._reactor = reactor
        self._host = host
        self._channel: pycares.Channel | None = None
        self._sockets: dict[int, _Socket] = {}
        self._timer: IDelayedCall | None = None
        self._outcome: _Outcome | None = None

    def start(self, resolv_conf: str | None) -> None:
        """Ask. What stands in the hosts file is the result at once.

        :raises AresError: when c-ares cannot start.
        """
        self._channel = pycares.Channel(sock_state_cb=self._watch, resolvconf_path=resolv_conf)
        self._channel.getaddrinfo(self._host, None, type=socket.SOCK_STREAM, flags=_FLAGS, callback=self._found)
        self._go_on()

    def process(self, readable: int = pycares.ARES_SOCKET_BAD, writable: int = pycares.ARES_SOCKET_BAD) -> None:
        """Let c-ares read from, and write to, these descriptors, and see what is late."""
        if self._channel is not None:
            self._channel.process_fd(readable, writable)
            self._go_on()

    def _found(self, result: pycares.AddrInfoResult | None, error: int | None) -> None:
        """c-ares has come to an end; it is not to be called from in here."""
        self._outcome = result, error

    def _go_on(self) -> None:
        if self._outcome is None:
            self._set_timer()
            return
        outcome = self._outcome
        self._end()
        try:
            addresses = _addresses(self._host, *outcome)
        except (DNSLookupError, ProxyError) as error:
            self.result.errback(Failure(error))
        else:
            self.result.callback(addresses)

    def _set_timer(self) -> None:
        self._stop_timer()
        assert self._channel is not None
        self._timer = self._reactor.callLater(self._channel.timeout() or _SOON, self._late)

    def _late(self) -> None:
        self._timer = None
        self.process()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _end(self) -> None:
        """Give up what is under way. The library's thread frees the channel, which has no sockets any more."""
        self._stop_timer()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.cancel()
            channel.close()

    def _watch(self, descriptor: int, readable: bool, writable: bool) -> None:
        """c-ares waits for *descriptor*, or closes it: neither readable nor writable is of interest then."""
        watched = self._sockets.setdefault(descriptor, _Socket(self, descriptor))
        (self._reactor.addReader if readable else self._reactor.removeReader)(watched)
        (self._reactor.addWriter if writable else self._reactor.removeWriter)(watched)
        if not readable and not writable:
            del self._sockets[descriptor]


@implementer(IReadDescriptor, IWriteDescriptor)
class _Socket:
    """A socket of c-ares's, to the reactor."""

    def __init__(self, lookup: _Lookup, descriptor: int) -> None:
        self._lookup = lookup
        self._descriptor = descriptor

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._descriptor

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        self._lookup.process(readable=self._descriptor)

    def doWrite(self) -> None:
        """See `IWriteDescriptor`."""
        self._lookup.process(writable=self._descriptor)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen an error (such as ICMP's port unreachable): c-ares sees it when it reads."""
        self._lookup.process(readable=self._descriptor)

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "dns"
