"""The relay's way out through another HTTP proxy, where the host has no other (`egress.upstream_proxy`).

The relay asks it by CONNECT, with the destination's name. It looks names up and dials, so no address is checked here
but those that the enclave asks for itself: what a name leads to is the proxy's matter. Nothing that it answers is
believed but the status, and the time and bytes for that are bounded.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.target import Origin

#: Bytes of a file with credentials, at most; permissions that it must not give.
_LONGEST_CREDENTIALS: Final = 1024
_FORBIDDEN_MODE: Final = 0o137


@dataclass(frozen=True)
class ProxyOfOthers:
    """The proxy.

    :ivar endpoint: connects to it; fails with `ProxyError`.
    :ivar url: what to call it in messages.
    :ivar credentials: fields that log the relay in; empty: it needs none.
    :ivar no_proxy: ``host:port`` patterns of what is dialled without it.
    """

    endpoint: IStreamClientEndpoint
    url: str
    credentials: Headers
    no_proxy: Sequence[str]


class UpstreamProxy:
    """Leads through the proxy.

    :param timeout: seconds in which it must have answered: less than whoever asks for the connection waits, so that
        the failure names the proxy.
    :ivar trouble: why the last connection was not made, for the health page, if that is the proxy's fault or that of
        the credentials; None when one was.
    """

    def __init__(self, proxy: ProxyOfOthers, deadlines: Deadlines, timeout: float) -> None:
        self.proxy = proxy
        self.deadlines = deadlines
        self.timeout = timeout
        self.trouble: str | None = None
        self._direct = Policy(proxy.no_proxy, [])

    def is_for(self, host: str, port: int) -> bool:
        """Whether the way to *host*:*port* leads through the proxy."""
        return not self._direct.decide(host, port).allowed

    def endpoint_for(self, origin: Origin) -> IStreamClientEndpoint:
        """Leads to *origin*. The proxy gets no id of ours."""
        return _Endpoint(self, origin)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """See `UpstreamProxy.endpoint_for`."""

    def __init__(self, upstream: UpstreamProxy, origin: Origin) -> None:
        self._upstream = upstream
        self._origin = origin

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; may be cancelled.

        :returns: fails with `Kind.UPSTREAM_PROXY_UNAVAILABLE` when the proxy cannot be asked, with
            `Kind.UPSTREAM_PROXY_REFUSED` when it opens no tunnel, with `Kind.CONNECTION_TIMEOUT` when that takes too
            long.
        """
        upstream, proxy = self._upstream, self._upstream.proxy
        late = False

        def time_out() -> None:
            nonlocal late
            late = True
            connecting.cancel()

        def over(outcome: IProtocol | Failure) -> IProtocol | Failure:
            deadline.cancel()
            if not isinstance(outcome, Failure):
                upstream.trouble = None
                return outcome
            if late:
                detail = f"{proxy.url} did not answer CONNECT within {upstream.timeout:g} seconds"
                return Failure(ProxyError(Kind.CONNECTION_TIMEOUT, detail))
            return self._failed(outcome)

        endpoint = ConnectEndpoint(proxy.endpoint, self._origin.authority, proxy.credentials, ours=False)
        connecting: Deferred[IProtocol] = endpoint.connect(protocolFactory)
        deadline = upstream.deadlines.after(upstream.timeout, time_out)
        return connecting.addBoth(over)

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if not isinstance(error, ProxyError):
            return failure
        if error.kind is Kind.UPSTREAM_PROXY_REFUSED:
            detail = f"{self._upstream.proxy.url} {error.detail}"
            # It answers, but with 407 it would answer so whatever it is asked.
            self._upstream.trouble = detail if "with 407" in detail else None
            return Failure(ProxyError(error.kind, detail))
        detail = f"{self._upstream.proxy.url}: {error.detail}"
        self._upstream.trouble = detail
        return Failure(ProxyError(Kind.UPSTREAM_PROXY_UNAVAILABLE, detail))


def read_credentials(path: str) -> Headers:
    """The field that logs the relay in (RFC 7617), from a file with one line: user, colon, password, in UTF-8.

    :raises ValueError: naming the file and what is wrong with it, never what is in it.
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST_CREDENTIALS + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if mode & _FORBIDDEN_MODE:
        raise ValueError(f"{path}: its mode is {mode:04o}, so others can reach the password: chmod 0600 or 0640")
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > _LONGEST_CREDENTIALS or b":" not in line or any(byte < 0x20 or byte == 0x7F for byte in line):
        raise ValueError(f"{path}: expected one line, user:password, of at most {_LONGEST_CREDENTIALS} bytes")
    return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(line))]
