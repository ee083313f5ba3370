"""A CONNECT being carried out: dials, then turns the client's connection into a tunnel, or answers why it cannot.

To the client's connection it looks like an `Exchange`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.failures import as_proxy_error
from nitroproxy.proxy.interfaces import Client
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial
from nitroproxy.proxy.trace import trace_headers
from nitroproxy.proxy.transport import factory_of
from nitroproxy.proxy.tunnel import TunnelProtocol


class ConnectRequest:
    """Dials *route*. See `ClientExchange` for who calls it.

    :param timeout: seconds in which there must be a connection; they begin when the request arrives.
    """

    #: A CONNECT has no body; what follows it is kept for the tunnel.
    wants_body = False

    def __init__(self, client: Client, route: Dial, record: Record, timeout: float) -> None:
        self._client = client
        self._route = route
        self._record = record
        self._timeout = timeout
        client.alarm.set(timeout, self._time_out)
        self._dialling: Deferred[Any] | None = None
        self._over = False

    def start(self) -> None:
        """Dial."""
        record = self._record
        endpoint = self._route.endpoint_for(trace_headers(record.request_id, record.traceparent))
        dialling = self._dialling = endpoint.connect(factory_of(TunnelProtocol))
        dialling.addCallbacks(self._dialled, self._failed)

    def _dialled(self, protocol: TunnelProtocol) -> None:
        if self._over:
            protocol.transport.abortConnection()
            return
        self._finish()
        try:
            self._client.check_tunnel(protocol.transport.getPeer())
            self._record.opened_by = self._record.request_id
            self._client.answering(200)
            self._client.response.connected()
            self._client.become_tunnel(protocol.transport, protocol.join, b"")
        except Exception:  # A refusal, or a defect, after which nothing else would end the two connections.
            protocol.transport.abortConnection()
            self._client.fail(as_proxy_error(Failure()), False)

    def _failed(self, failure: Failure) -> None:
        if not self._over:
            self._finish()
            # Not complete: what the client sent for the tunnel must not be read as a request.
            self._client.send_problem(as_proxy_error(failure), False)

    def _time_out(self) -> None:
        late = ProxyError(Kind.CONNECTION_TIMEOUT, f"no connection within {self._timeout:g} seconds")
        self.abandon()
        self._client.send_problem(late, False)

    def _finish(self) -> None:
        self._over = True
        self._client.alarm.clear()

    def abandon(self) -> None:
        """Stop dialling: the client has gone, or has its answer already."""
        if not self._over:
            self._finish()
            if self._dialling is not None:
                self._dialling.cancel()

    def request_data(self, data: bytes) -> None:
        """There is none: see `wants_body`."""

    def request_end(self) -> None:
        """It changes nothing: the tunnel begins with the answer."""
