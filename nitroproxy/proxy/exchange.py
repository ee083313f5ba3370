"""One request to its response, through one upstream connection: streaming, deadlines, retry.

The client's side hands over the request's body piece by piece and is handed the response's; the
exchange never holds a body. Each side's transport is the producer of the other's while a body moves.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.chunked import LAST_CHUNK, encode_chunk
from nitroproxy.http1.headers import HOP_BY_HOP, end_to_end, members
from nitroproxy.http1.messages import CHUNKED, Headers, Request, Response
from nitroproxy.http1.writer import request_head
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.interfaces import Client
from nitroproxy.proxy.pinned import carries_login, offers_login
from nitroproxy.proxy.proxy_status import read_proxy_status, without_our_names
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Forward
from nitroproxy.proxy.settings import ExchangeSettings
from nitroproxy.proxy.trace import NOT_PASSED_ON, ViaName, trace_headers, without_stale_state
from nitroproxy.proxy.upstream import UpstreamConnection

#: Methods that may be sent again when the answer got lost (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
#: A next hop that cannot be reached may be back in a moment; nothing of the request has left.
_WORTH_RETRYING: Final = frozenset({Kind.ENCLAVE_UNAVAILABLE, Kind.RELAY_UNAVAILABLE})
#: Beside the hop-by-hop fields, those that are made from what was understood of the request.
_NOT_PASSED_ON: Final = HOP_BY_HOP | NOT_PASSED_ON | {b"host", b"content-length", b"expect"}
#: Seconds over which a request body's rate is looked at.
_RATE_WINDOW: Final = 5.0


class Exchange:
    """Drives one forwarded request. Its client is told the outcome."""

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
        self._connection: UpstreamConnection | None = None
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._deadline: Deadline | None = None
        self._retries = 0
        self._pooled = False
        #: The connection belongs to this client alone.
        self._pinned = carries_login(request.fields)
        self._request_sent = request.content_length == 0
        #: Nothing tells the client to wait before it sends its body.
        self._may_send = not request.expects_continue
        self._request_flows = False
        self._response_flows = False
        self._response_begun = False
        self._over = False
        #: The request has been sent and its response has not begun.
        self._waiting = False
        self._last_moved = 0.0
        self._received_before = 0
        #: When all of the request was here: for what has no body, also if it has not been sent.
        self._complete_at = deadlines.seconds()

    # From the request's arrival to its head on the wire.

    def start(self) -> None:
        """Find a connection and send the head."""
        pool, key = self._route.pool, self._route.key
        connection = self._client.pinned.take(pool, key)
        if connection is not None:
            self._pinned = True
            self._send_head(connection)
            return
        # What logs a connection in never goes where it might be sent a second time, elsewhere.
        connection = None if self._pinned else pool.take_idle(key)
        if connection is not None:
            self._pooled = True
            self._send_head(connection)
        else:
            self._connect()

    def _connect(self) -> None:
        self._cancel_deadline()  # What it was set for is over.
        self._pooled = False
        identity = trace_headers(self._record.request_id, self._record.traceparent)
        self._connecting = self._route.pool.connect(self._route.key, identity)
        self._connecting.addCallbacks(self._connected, self._connect_failed)

    def _connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self._over:
            connection.forget()
        else:
            self._send_head(connection)

    def _connect_failed(self, failure: Failure) -> None:
        self._connecting = None
        if self._over or failure.check(CancelledError):
            return
        error = as_proxy_error(failure)
        if error.kind in _WORTH_RETRYING and self._retries < self._settings.max_retries:
            self._retries += 1
            self._deadline = self._deadlines.after(self._settings.delay_before(self._retries), self._connect)
        else:
            self._fail(error)

    def _send_head(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._record.connected = self._deadlines.seconds()
        self._record.opened_by = connection.opened_by
        connection.begin(self, self._request.method)
        connection.transport.write(request_head(self._request.method, self._route.target, self._headers()))
        if self._request_sent:
            self._await_response()
        else:
            self._request_flows = True
            connection.transport.registerProducer(self._client.throttle, True)
            self._watch()
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
        return self._request_flows

    def request_data(self, data: bytes) -> None:
        """The client has sent a piece of the body."""
        if self._connection is None or self._connection.gone:
            return
        self._last_moved = self._deadlines.seconds()
        if self._request.content_length == CHUNKED:
            self._connection.transport.writeSequence(encode_chunk(data))
        else:
            self._connection.transport.write(data)

    def request_end(self) -> None:
        """The client has sent all of the body."""
        self._request_sent = True
        self._complete_at = self._deadlines.seconds()
        self._stop_request_flow()
        if self._connection is None or self._connection.gone:
            return
        if self._request.content_length == CHUNKED:
            self._connection.transport.write(LAST_CHUNK)
        if not self._response_begun:
            self._await_response()

    def _stop_request_flow(self) -> None:
        if self._request_flows:
            self._request_flows = False
            if self._connection is not None and not self._connection.gone:
                self._connection.transport.unregisterProducer()

    # The response, as the upstream connection reads it.

    def response_interim(self, response: Response) -> None:
        """A 1xx other than 101."""
        self._heed_proxy_status(response)
        self._may_send = True
        self._client.response.interim(response)

    def response_head(self, response: Response) -> None:
        """The final response's head."""
        self._response_begun = True
        self._waiting = False
        self._moved_now()
        if b"proxy-status" in response.fields.values:
            self._heed_proxy_status(response)
        if offers_login(response.fields):
            self._pinned = True
        self._client.answering(response.status)
        if not self._request_sent and response.status >= 400:
            self._client.response.close_after = True  # Nobody wants the rest of the body.
        self._client.response.head(response)

    def _heed_proxy_status(self, response: Response) -> None:
        """Note what a hop of ours says of a failure; let nobody else say anything in our name."""
        if not self._route.ours:
            response.fields.in_order = without_our_names(response.fields.in_order)
        elif response.status >= 400:
            self._record.passed_on = read_proxy_status(response.fields.get(b"proxy-status") or b"")

    def response_data(self, data: bytes, last: bool) -> None:
        """A piece of its body."""
        if data:
            self._client.send_body(data)
        if last or self._connection is None:
            return
        self._last_moved = self._deadlines.seconds()
        if not self._response_flows:
            self._response_flows = True
            self._client.pace.follow(self._connection)

    def response_end(self, reusable: bool) -> None:
        """The whole response has been read."""
        connection = self._finish()
        if connection is not None:
            if not (reusable and self._request_sent):
                connection.forget()
            elif self._pinned:
                connection.rest()
                self._client.pinned.keep(connection)
            else:
                self._route.pool.release(connection)
        self._client.exchange_done(self._request_sent)

    def response_upgrade(self, response: Response, rest: bytes) -> None:
        """101: the connection now speaks what the client offered."""
        if not self._request_sent or not _offered(self._request.upgrade, response):
            detail = "a 101 to a request that did not offer the upgrade, or was not complete"
            self.response_failed(ProxyError(Kind.HTTP_UPGRADE_FAILED, detail))
            return
        assert self._connection is not None
        try:
            self._client.check_tunnel(self._connection.transport.getPeer())
        except ProxyError as error:
            self.response_failed(error)
            return
        self._heed_proxy_status(response)
        connection = self._finish()
        assert connection is not None
        self._client.answering(101)
        self._client.response.switching(response)
        self._client.become_tunnel(connection.transport, connection.join, rest)

    def response_failed(self, error: ProxyError) -> None:
        """The connection was lost or broke the protocol."""
        stale = self._pooled and error.kind is Kind.CONNECTION_TERMINATED and not self._response_begun
        if stale and self._request.content_length == 0 and self._request.method in _IDEMPOTENT and not self._over:
            self._connection = None
            self._connect()
        else:
            self._fail(error)

    # Deadlines and ends.

    def _await_response(self) -> None:
        """The request has been sent. Whoever asked waits since all of it was here, however long connecting took."""
        self._waiting = True
        self._last_moved = self._complete_at
        if self._deadline is None:
            self._look_later(self._deadlines.seconds())

    def _watch(self) -> None:
        """A body moves: from now on see to it that it goes on moving."""
        self._waiting = False
        self._cancel_deadline()
        self._moved_now()

    def _moved_now(self) -> None:
        """Something happened. A deadline that is set already is late at worst by what it has left, and looks again."""
        now = self._last_moved = self._deadlines.seconds()
        if self._deadline is None:
            self._look_later(now)

    def _look_later(self, now: float) -> None:
        self._received_before = self._record.received
        self._client.throttle.was_full = self._client.throttle.full or not self._may_send
        settings = self._settings
        left = self._last_moved + self._patience - now
        wait = min(left, _RATE_WINDOW) if self._request_flows and settings.min_body_rate else left
        # Never longer than the shortest patience there may be need of next.
        wait = min(wait, settings.response_timeout, settings.idle_timeout)
        self._deadline = self._deadlines.after(max(wait, 0.0), self._check_progress)

    def _check_progress(self) -> None:
        self._deadline = None
        patience = self._patience
        now = self._deadlines.seconds()
        if now >= self._last_moved + patience:
            if self._waiting:
                kind = Kind.HTTP_RESPONSE_TIMEOUT
                self._fail(ProxyError(kind, f"no response within {patience:g} seconds"))
                return
            if self._response_begun and self._client.pace.full:
                self._client.abort()  # Not the response has stopped but its reader: as if that had left.
                return
            if self._response_begun:
                kind = Kind.HTTP_RESPONSE_INCOMPLETE
            elif self._may_send and not self._client.throttle.full:
                kind = Kind.REQUEST_TIMEOUT
            else:
                kind = Kind.HTTP_RESPONSE_TIMEOUT  # It was for the upstream to read on, or to say 100.
            self._fail(ProxyError(kind, f"nothing moved for {patience:g} seconds"))
        elif self._request_flows and self._too_slow():
            detail = f"the request body comes at less than {self._settings.min_body_rate} bytes a second"
            self._fail(ProxyError(Kind.REQUEST_TIMEOUT, detail))
        else:
            self._look_later(now)

    @property
    def _patience(self) -> float:
        """Seconds in which something has to move."""
        waits = self._waiting or not self._may_send
        return self._settings.response_timeout if waits else self._settings.idle_timeout

    def _too_slow(self) -> bool:
        """The client sends too little, nobody holds it back, and there is no response yet on which that may depend."""
        if self._response_begun:
            return False
        received = self._record.received - self._received_before
        return not self._client.throttle.was_full and received < self._settings.min_body_rate * _RATE_WINDOW

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _finish(self) -> UpstreamConnection | None:
        """Let go of everything, and give back the connection."""
        self._over = True
        self._cancel_deadline()
        self._stop_request_flow()
        if self._response_flows:
            self._response_flows = False
            self._client.pace.follow(None)
        connection, self._connection = self._connection, None
        return connection

    def _fail(self, error: ProxyError) -> None:
        if self._over:
            return
        self.abandon()
        self._client.fail(error, self._request_sent)

    def abandon(self) -> None:
        """Stop at once: the client has gone, or has been told."""
        connection = self._finish()
        if connection is not None:
            connection.forget()
        if self._connecting is not None:
            self._connecting.cancel()


def _one_hop_less(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Max-Forwards, which counts down on its way (RFC 9110 section 7.6.2)."""
    name, value = header
    if name.lower() != b"max-forwards" or not value.isdigit():
        return header
    return name, b"%d" % max(int(value) - 1, 0)


def _offered(upgrade: bytes | None, response: Response) -> bool:
    """Whether *response* switches to at least one protocol, and only to such as the client offered with *upgrade*
    (RFC 9110 section 7.8). Without an offer there is no switch, whatever the response says."""
    if upgrade is None:
        return False
    offered = members([upgrade.lower()])
    chosen = members(value.lower() for value in response.fields.values.get(b"upgrade", ()))
    return bool(chosen) and all(protocol in offered for protocol in chosen)


def as_proxy_error(failure: Failure) -> ProxyError:
    """*failure* as something a client can be told."""
    if isinstance(failure.value, ProxyError):
        return failure.value
    return ProxyError(Kind.INTERNAL_ERROR, f"unexpected {failure.type.__name__ if failure.type else 'failure'}")
