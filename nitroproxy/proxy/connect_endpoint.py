"""Endpoints that lead through another hop: CONNECT sent on a connection, and failures that name the hop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from nitroproxy.errors import Kind, ProxyError, reason_of
from nitroproxy.http1.messages import UNTIL_CLOSE, Headers, Limits, Response
from nitroproxy.http1.reader import ResponseReader
from nitroproxy.http1.writer import request_head
from nitroproxy.proxy.problem import read_problem
from nitroproxy.proxy.transport import StreamTransport, factory_of

#: Longest refusal of a CONNECT that is read, in bytes.
_LONGEST_REFUSAL: Final = 16384
#: Interim responses taken before the answer to a CONNECT.
_MOST_INTERIM: Final = 8


#: What a proxy of others means by a status.
_MEANING: Final = {
    403: ": it does not allow the destination",
    407: ": it does not accept the credentials",
    502: ": it cannot reach the destination",
    503: ": it cannot reach the destination",
    504: ": it cannot reach the destination in time",
}


@implementer(IStreamClientEndpoint)
class HopEndpoint:
    """Connects to another of our hops; its failures name the hop that cannot be reached.

    :param kind: the failure to report, `Kind.ENCLAVE_UNAVAILABLE` or `Kind.RELAY_UNAVAILABLE`.
    :param name: what the failure's detail calls the hop, with its address.
    :param buffer_bytes: most that the connection holds, each way.
    :param tried: called after each attempt with its failure, or with None when it succeeded; not after one that was
        cancelled, which says nothing of the hop.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        kind: Kind,
        name: str,
        buffer_bytes: int,
        tried: Callable[[Failure | None], object] = lambda failure: None,
    ) -> None:
        self._tried = tried
        self._endpoint = endpoint
        self._kind = kind
        self._name = name
        self._buffer_bytes = buffer_bytes

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect.

        The Deferred fails with `ProxyError` when the hop cannot be reached, with `CancelledError` when it is cancelled,
        and with any other exception as it is: that is a defect, not the hop's state.
        """
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        connecting.addCallbacks(self._connected, self._failed)
        return connecting

    def _connected(self, protocol: IProtocol) -> IProtocol:
        self._tried(None)
        transport = protocol.transport  # type: ignore[attr-defined]
        if transport is not None:
            transport.bufferSize = self._buffer_bytes // 2
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(CancelledError, ConnectingCancelledError):
            return Failure(CancelledError())
        self._tried(failure)
        if not failure.check(ConnectError, OSError):
            return failure
        assert failure.value is not None
        return Failure(ProxyError(self._kind, f"{self._name}: {reason_of(failure.value)}"))


@implementer(IStreamClientEndpoint)
class ConnectEndpoint:
    """Leads through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6).

    :param endpoint: the proxy.
    :param authority: ``host:port`` of the destination.
    :param identity: fields that identify the request, or the client; they go to the proxy with the CONNECT.
    :param ours: the proxy is a hop of ours, whose report of a failure is believed.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, authority: bytes, identity: Headers, *, ours: bool = True
    ) -> None:
        self._endpoint = endpoint
        self._ours = ours
        self._head = request_head(b"CONNECT", authority, [(b"Host", authority), *identity])

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with the `ProxyError` that the proxy answered with, or as *endpoint* does.

        The caller bounds the time: there is none here for a proxy that does not answer.
        """

        def cancel(_: object) -> None:
            if handshake.transport is None:
                connecting.cancel()
            else:
                handshake.transport.abortConnection()

        result: Deferred[IProtocol] = Deferred(cancel)
        handshake = _Handshake(self._head, protocolFactory, result, self._ours)
        # The factory lives as long as the connection, so it holds no more than the handshake.
        connecting = self._endpoint.connect(factory_of(lambda: handshake))
        connecting.addErrback(result.errback)
        return result


class _Handshake(Protocol):
    """Sends CONNECT, reads the answer, and is from then on only a bridge to the application's protocol."""

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self, head: bytes, factory: IProtocolFactory, result: Deferred[IProtocol], ours: bool) -> None:
        self._head = head
        self._ours = ours
        self._factory = factory
        self._result = result
        self._reader = ResponseReader(Limits())
        self._response: Response | None = None
        self._refusal = b""
        self._interim = 0
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._head)

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self._response is None:
                response = self._reader.read_head(b"CONNECT")
                if response is None:
                    return
                if response.status >= 200 or response.status == 101:
                    self._response = response
                else:
                    self._pass_over_interim()
            if 200 <= self._response.status < 300:
                self._established()
            elif self._ours:
                self._read_refusal(self._response)
            else:
                detail = f"answered CONNECT with {self._response.status}"
                self._failed(ProxyError(Kind.UPSTREAM_PROXY_REFUSED, detail + _MEANING.get(self._response.status, "")))
        except ProxyError as error:
            if not self._ours:
                error = ProxyError(
                    Kind.UPSTREAM_PROXY_REFUSED, f"gave no answer to CONNECT that can be read: {error.detail}"
                )
            self._failed(error)

    def _pass_over_interim(self) -> None:
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            detail = f"the next proxy sent more than {_MOST_INTERIM} interim responses to CONNECT"
            raise ProxyError(Kind.HTTP_PROTOCOL_ERROR, detail)
        self._reader.next_message()

    def _established(self) -> None:
        inner = self._factory.buildProtocol(self.transport.getPeer())
        if inner is None:
            self._failed(ProxyError(Kind.INTERNAL_ERROR, "internal error: no protocol for the connection"))
            return
        self._inner = inner
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        if IHalfCloseableProtocol.providedBy(inner):
            directlyProvides(self, IHalfCloseableProtocol)
            self.readConnectionLost = inner.readConnectionLost
            self.writeConnectionLost = inner.writeConnectionLost
        result, rest = self._result, self._reader.take_rest()
        # The connection may be idle for long: nothing of its beginning is kept.
        del self._head, self._factory, self._result, self._reader, self._response, self._refusal
        inner.makeConnection(cast(ITransport, self.transport))
        result.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _read_refusal(self, response: Response) -> None:
        self._refusal += self._reader.read_body()
        if self._reader.complete or len(self._refusal) > _LONGEST_REFUSAL or response.content_length == UNTIL_CLOSE:
            reported = read_problem(self._refusal)
            detail = f"the next proxy answered CONNECT with {response.status}"
            self._failed(reported or ProxyError(Kind.HTTP_PROTOCOL_ERROR, detail))

    def _failed(self, error: ProxyError) -> None:
        if self._inner is None and not self._result.called:
            self._result.errback(error)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self._result.called:
            self._result.errback(
                ProxyError(Kind.CONNECTION_TERMINATED, "the connection ended before CONNECT was answered")
            )
