"""One request to its response, through one upstream connection: streaming, retries, the end of both.

The client's side hands over the request's body piece by piece and gets the response's in the same way; the exchange
holds no body. While a body moves, each side's transport is the producer of the other's. How far both have come and how
long that may take is `progress`.
"""

from __future__ import annotations

import enum
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.chunked import LAST_CHUNK, encode_chunk
from nitroproxy.http1.headers import HOP_BY_HOP, end_to_end, members
from nitroproxy.http1.messages import CHUNKED, Fields, Headers, Request, Response
from nitroproxy.http1.writer import request_head
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.failures import as_proxy_error
from nitroproxy.proxy.interfaces import Client
from nitroproxy.proxy.pinned import carries_login, offers_login
from nitroproxy.proxy.progress import Progress
from nitroproxy.proxy.proxy_status import read_proxy_status, without_our_names
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.route import Forward
from nitroproxy.proxy.settings import ExchangeSettings
from nitroproxy.proxy.states import AWAITING_100, DONE, NONE, SENT, TAKES_BODY, Event
from nitroproxy.proxy.trace import NOT_PASSED_ON, ViaName, trace_headers, without_stale_state
from nitroproxy.proxy.upstream import UpstreamConnection

#: Methods that may be sent again when the answer got lost (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
#: A next hop that cannot be reached may be back in a moment; nothing of the request has left.
_WORTH_RETRYING: Final = frozenset({Kind.ENCLAVE_UNAVAILABLE, Kind.RELAY_UNAVAILABLE})
#: Beside the hop-by-hop fields, those that are made from what was understood of the request.
_NOT_PASSED_ON: Final = HOP_BY_HOP | NOT_PASSED_ON | {b"host", b"content-length", b"expect"}
#: Digits of Max-Forwards that are read: Python refuses to read thousands.
_FORWARDS_DIGITS: Final = 6
#: The media type of a response that may be silent for long (WHATWG HTML, server-sent events).
_EVENT_STREAM: Final = b"text/event-stream"


class _Lease(enum.Enum):
    """What the exchange's connection is to it."""

    #: It is made for this request and goes to the pool afterwards.
    NEW = enum.auto()
    #: It was idle in the pool: it may have died there.
    POOLED = enum.auto()
    #: It belongs to this client alone.
    PINNED = enum.auto()


_NEW, _POOLED, _PINNED = _Lease


class Exchange:
    """Drives one forwarded request; reports the outcome to its client. See `ClientExchange` for who calls it."""

    def __init__(
        self,
        client: Client,
        request: Request,
        route: Forward,
        record: Record,
        settings: ExchangeSettings,
        deadlines: Deadlines,
        via_name: ViaName,
    ) -> None:
        self._client = client
        self._request = request
        self._route = route
        self._record = record
        self._via_name = via_name
        self._settings = settings
        self._deadlines = deadlines
        self._progress = Progress(client, record, settings, deadlines, self._late)
        self._lease = _PINNED if carries_login(request.fields) else _NEW
        self._connection: UpstreamConnection | None = None
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._retry: Deadline | None = None
        self._retries = 0

    # From the request's arrival to its head on the wire.

    def start(self) -> None:
        """Find a connection and send the head."""
        pool, key = self._route.pool, self._route.key
        connection = self._client.pinned.take(pool, key)
        if connection is not None:
            self._lease = _PINNED
        elif self._lease is not _PINNED:
            # What logs a connection in never goes where it might be sent a second time, elsewhere.
            connection = pool.take_idle(key)
            if connection is not None:
                self._lease = _POOLED
        if connection is not None:
            self._send_head(connection)
        else:
            self._connect()

    def _connect(self) -> None:
        self._retry = None
        if self._lease is _POOLED:
            self._lease = _NEW
        identity = trace_headers(self._record.request_id, self._record.traceparent)
        self._connecting = self._route.pool.connect(self._route.key, identity)
        self._connecting.addCallbacks(self._connected, self._connect_failed).addErrback(self._broken)

    def _connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self._progress.response is DONE:
            connection.forget()
        else:
            self._send_head(connection)

    def _connect_failed(self, failure: Failure) -> None:
        self._connecting = None
        if self._progress.response is DONE or failure.check(CancelledError):
            return
        error = as_proxy_error(failure)
        if error.kind in _WORTH_RETRYING and self._retries < self._settings.max_retries:
            self._retries += 1
            self._retry = self._deadlines.after(self._settings.delay_before(self._retries), self._connect)
        else:
            self._fail(error)

    def _broken(self, failure: Failure) -> None:
        """A defect here. Otherwise nothing would end the exchange, as no deadline runs yet."""
        self._fail(as_proxy_error(failure))

    def _send_head(self, connection: UpstreamConnection) -> None:
        request = self._request
        self._connection = connection
        self._record.connected = self._deadlines.seconds()
        self._record.opened_by = connection.opened_by
        connection.begin(self, request.method)
        connection.transport.write(request_head(request.method, self._route.target, self._headers()))
        if self._lease is not _POOLED:
            # It is not sent a second time; the wait for its response may be long, and its head large.
            request.fields = Fields()
        if request.content_length == 0:
            self._progress.happened(Event.HEAD_SENT)
            return
        expecting = request.expects_continue
        self._progress.happened(Event.HEAD_SENT_EXPECTING if expecting else Event.HEAD_SENT_BEFORE_BODY)
        connection.transport.registerProducer(self._client.throttle, True)
        self._client.take_body()

    def _headers(self) -> Headers:
        request = self._request
        headers = [(b"Host", self._route.host)]
        if request.fields.get(b"content-length") is not None:
            headers.append((b"Content-Length", b"%d" % request.content_length))
        headers += end_to_end(request.fields.in_order, request.connection_options, _NOT_PASSED_ON)
        if request.method == b"OPTIONS":
            headers = [_one_hop_less(header) for header in headers]
        if request.expects_continue:
            headers.append((b"Expect", b"100-continue"))
        if request.content_length == CHUNKED:
            headers.append((b"Transfer-Encoding", b"chunked"))
        if request.upgrade is not None:
            headers += [(b"Connection", b"upgrade"), (b"Upgrade", request.upgrade)]
        headers += trace_headers(self._record.request_id, self._record.traceparent, ours=self._route.ours)
        headers.append((b"Via", (b"1.0 " if request.http10 else b"1.1 ") + self._via_name.fresh()))
        return without_stale_state(headers, request)

    # The request's body.

    @property
    def wants_body(self) -> bool:
        """The request's body has somewhere to go."""
        return self._progress.request in TAKES_BODY and self._progress.response is not DONE

    def request_data(self, data: bytes) -> None:
        """The client has sent a piece of the body."""
        assert self._connection is not None
        if self._progress.request is AWAITING_100:
            self._progress.happened(Event.BODY)
        self._progress.moved()
        if self._request.content_length == CHUNKED:
            self._connection.transport.writeSequence(encode_chunk(data))
        else:
            self._connection.transport.write(data)

    def request_end(self) -> None:
        """The client has sent all of the body."""
        assert self._connection is not None
        self._connection.transport.unregisterProducer()
        self._progress.happened(Event.BODY_END)
        if self._request.content_length == CHUNKED:
            self._connection.transport.write(LAST_CHUNK)

    # The response, as the upstream connection reads it.

    def response_interim(self, response: Response) -> None:
        """A 1xx other than 101. Only 100 lets the client send its body (RFC 9110 section 15.2.1)."""
        self._heed_proxy_status(response)
        self._progress.happened(Event.CONTINUE if response.status == 100 else Event.INTERIM)
        self._client.response.interim(response)

    def response_head(self, response: Response, data: bytes, last: bool) -> None:
        """The final response's head, and what has come of its body."""
        self._progress.event_stream = _is_event_stream(response)
        self._progress.happened(Event.RESPONSE_HEAD)
        if b"proxy-status" in response.fields.values:
            self._heed_proxy_status(response)
        if offers_login(response.fields):
            self._lease = _PINNED
        self._client.answering(response.status)
        if self._progress.request is not SENT:
            # It may end before the request does, and the connection then ends with it: the head is the last place to
            # say so (RFC 9112 section 9.6). A client that goes on sending can still read all of the response.
            self._client.response.close_after = True
        self._record.sent += len(data)
        self._client.response.head(response, data)
        self._flows(last)

    def _heed_proxy_status(self, response: Response) -> None:
        """Note what a hop of ours says of a failure; remove what any other says in our name."""
        if not self._route.ours:
            response.fields.in_order = without_our_names(response.fields.in_order)
        elif response.status >= 400:
            self._record.passed_on = read_proxy_status(response.fields.get(b"proxy-status") or b"")

    def response_data(self, data: bytes, last: bool) -> None:
        """A piece of its body."""
        if data:
            self._client.send_body(data)
        self._flows(last)

    def _flows(self, last: bool) -> None:
        """Something of the response has gone to the client; unless it was the last, more comes at the client's pace."""
        if last or self._connection is None:
            return
        self._progress.moved()
        if self._client.pace.source is not self._connection:
            self._client.pace.follow(self._connection)

    def response_end(self, reusable: bool) -> None:
        """The whole response has been read."""
        complete = self._progress.request is SENT
        connection = self._finish(Event.RESPONSE_END)
        if connection is not None:
            if not (reusable and complete):
                connection.forget()
            elif self._lease is _PINNED:
                connection.rest()
                self._client.pinned.keep(connection)
            else:
                self._route.pool.release(connection)
        self._client.exchange_done(complete)

    def response_upgrade(self, response: Response, rest: bytes) -> None:
        """101: the connection now speaks what the client offered."""
        if self._progress.request is not SENT or not _offered(self._request.upgrade, response):
            detail = "a 101 to a request that did not offer the upgrade, or was not complete"
            self._fail(ProxyError(Kind.HTTP_UPGRADE_FAILED, detail))
            return
        assert self._connection is not None
        try:
            self._client.check_tunnel(self._connection.transport.getPeer())
        except ProxyError as error:
            self._fail(error)
            return
        self._heed_proxy_status(response)
        connection = self._finish(Event.SWITCH)
        assert connection is not None
        self._client.answering(101)
        self._client.response.switching(response)
        self._client.become_tunnel(connection.transport, connection.join, rest)

    def response_failed(self, error: ProxyError) -> None:
        """The connection was lost or broke the protocol."""
        progress = self._progress
        stale = self._lease is _POOLED and error.kind is Kind.CONNECTION_TERMINATED
        sent_whole = progress.request is SENT and self._request.content_length == 0
        if stale and sent_whole and progress.response is NONE and self._request.method in _IDEMPOTENT:
            self._connection = None
            progress.happened(Event.STALE)
            self._connect()
        else:
            self._fail(error)

    # Ends.

    def _late(self, error: ProxyError | None) -> None:
        """The time is over: the exchange fails with *error*, or (None) the client has stopped reading its response."""
        if error is not None:
            self._fail(error)
        else:
            self._record.end = End.CLIENT_STOPPED_READING
            self._client.abort()

    def _finish(self, event: Event) -> UpstreamConnection | None:
        """End with *event*: release everything, and return the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._progress.request in TAKES_BODY and not connection.gone:
                connection.transport.unregisterProducer()
            if self._client.pace.source is connection:
                self._client.pace.follow(None)
        self._progress.happened(event)
        return connection

    def _fail(self, error: ProxyError) -> None:
        if self._progress.response is DONE:
            return
        complete = self._progress.request is SENT or self._request.content_length == 0
        self.abandon()
        self._client.fail(error, complete)

    def abandon(self) -> None:
        """Stop at once: the client has gone, or has its answer already."""
        connection = self._finish(Event.ABANDON)
        if connection is not None:
            connection.forget()
        if self._retry is not None:
            self._retry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()


def _one_hop_less(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Max-Forwards, which counts down on its way (RFC 9110 section 7.6.2); a number longer than any way counts as one
    million."""
    name, value = header
    if name.lower() != b"max-forwards" or not value.isdigit():
        return header
    digits = value.lstrip(b"0")
    forwards = int(digits or b"0") if len(digits) <= _FORWARDS_DIGITS else 10**_FORWARDS_DIGITS
    return name, b"%d" % max(forwards - 1, 0)


def _offered(upgrade: bytes | None, response: Response) -> bool:
    """Whether *response* switches to at least one protocol, and only to such as the client offered with *upgrade*
    (RFC 9110 section 7.8). Without an offer there is no switch, whatever the response says."""
    if upgrade is None:
        return False
    offered = members([upgrade.lower()])
    chosen = members(value.lower() for value in response.fields.values.get(b"upgrade", ()))
    return bool(chosen) and all(protocol in offered for protocol in chosen)


def _is_event_stream(response: Response) -> bool:
    """Whether *response* consists of server-sent events."""
    media_type = response.fields.get(b"content-type")
    if media_type is None or media_type[: len(_EVENT_STREAM)].lower() != _EVENT_STREAM:
        return False
    return media_type[len(_EVENT_STREAM) :].lstrip(b" \t")[:1] in (b"", b";")
