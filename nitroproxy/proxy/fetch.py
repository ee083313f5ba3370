"""A small request of our own to another hop, with its whole body in memory: for health, metrics and the log, not for
traffic."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Response
from nitroproxy.http1.writer import request_head
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.failures import as_proxy_error
from nitroproxy.proxy.upstream import Pool, UpstreamConnection


class _Collector:
    """Collects one response with a body of *longest* bytes at most."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self.done: Deferred[tuple[int, bytes]] = Deferred()
        self._status = 0
        self._body: list[bytes] = []
        self._size = 0
        self.reusable = False

    def response_interim(self, response: Response) -> None:
        """A 1xx changes nothing here."""

    def response_head(self, response: Response, data: bytes, last: bool) -> None:
        """The head, and what has come of the body."""
        self._status = response.status
        self.response_data(data, last)

    def response_data(self, data: bytes, last: bool) -> None:
        """A piece of the body."""
        self._size += len(data)
        if self._size > self._longest:
            self.response_failed(ProxyError(Kind.CONTENT_TOO_LARGE, f"the answer is over {self._longest} bytes"))
        else:
            self._body.append(data)

    def response_end(self, reusable: bool) -> None:
        """All of it."""
        self.reusable = reusable
        if not self.done.called:
            self.done.callback((self._status, b"".join(self._body)))

    def response_upgrade(self, response: Response, rest: bytes) -> None:
        """The request offered no upgrade."""
        self.response_failed(ProxyError(Kind.HTTP_UPGRADE_FAILED, "a 101 to a request that offered no upgrade"))

    def response_failed(self, error: ProxyError) -> None:
        """The connection was lost or broke the protocol."""
        if not self.done.called:
            self.done.errback(error)


async def fetch(
    pool: Pool,
    key: Hashable,
    path: bytes,
    deadlines: Deadlines,
    timeout: float,
    longest: int,
    *,
    method: bytes = b"GET",
    body: bytes | None = None,
    headers: Headers | None = None,
    host: bytes = b"localhost",
) -> tuple[int, bytes]:
    """Ask the hop that *key* names for *path*, on a connection of its own.

    Pages and the log shipper call it; several calls may run at once.

    :param timeout: seconds for all of it.
    :param longest: bytes that the answer's body may have; with more the connection is ended.
    :param body: of the request; None: it has none.
    :param headers: more fields of the request.
    :param host: what the Host field says.
    :returns: the status and the body.
    :raises ProxyError: when there is no complete answer in time, for whatever reason.
    """
    connecting = pool.connect(key, [])
    late = False
    collector = _Collector(longest)
    connection: UpstreamConnection | None = None

    def time_out() -> None:
        nonlocal late
        late = True
        if connection is None:
            connecting.cancel()
        else:
            collector.response_failed(ProxyError(Kind.HTTP_RESPONSE_TIMEOUT, f"no answer within {timeout:g} seconds"))

    deadline = deadlines.after(timeout, time_out)
    try:
        connection = await connecting
        fields = [(b"Host", host), (b"Connection", b"close"), *(headers or [])]
        if body is not None:
            fields.append((b"Content-Length", b"%d" % len(body)))
        connection.begin(collector, method)
        connection.transport.write(request_head(method, path, fields) + (body or b""))
        return await collector.done
    except (ProxyError, CancelledError) as error:
        if late and connection is None:
            raise ProxyError(Kind.CONNECTION_TIMEOUT, f"no connection within {timeout:g} seconds") from error
        raise
    except Exception as error:
        raise as_proxy_error(Failure()) from error
    finally:
        deadline.cancel()
        if connection is not None:
            connection.forget()
