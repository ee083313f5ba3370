"""The local upstream's web site: httpbin, two resources that send a body back, and what the bad listeners received.

Development only. It knows nothing of TLS, ports or certificates.

- `POST /echo` sends each piece of the body back as it arrives and reads no faster than its answer is read, so its
  memory does not grow with the body. A client must read while it writes, as curl does.
- `POST /stored-echo` answers when it has the whole body, for clients that read only after they have written
  (twisted.web's and therefore treq); the body waits in a temporary file.
"""

# mypy: allow-untyped-calls
# (twisted.web's methods carry no annotations.)

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, Final, cast
from typing import Protocol as Interface

from twisted.internet.interfaces import IReactorFromThreads
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.wsgi import WSGIResource

_ECHO_PATH: Final = b"/echo"
_THREADS: Final = 32


class AccessLog(Interface):
    """Takes one line for each request: see `print_access`."""

    def __call__(self, method: str, path: str, status: int, size: int) -> None: ...


def print_access(method: str, path: str, status: int, size: int) -> None:
    """Write one short line for a request to stderr; *path* is without its query, *size* is the answer's in bytes."""
    print(f"upstream: {method} {path} {status} {size} bytes", file=sys.stderr, flush=True)


class EchoChannel(HTTPChannel):
    """HTTP/1.1, and the current request's line for those that need it before the body has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.request_line = b""

    def lineReceived(self, line: bytes) -> None:
        self.request_line = self.request_line or line
        super().lineReceived(line)

    def allContentReceived(self) -> None:
        self.request_line = b""
        super().allContentReceived()


class EchoRequest(Request):
    """A request whose body, when it is a POST to ``/echo``, becomes the answer piece by piece as it comes in.

    What keeps it from reading ahead is HTTPChannel: it stops reading a request while the transport will take no more
    of an answer.
    """

    _echoing = False

    channel: EchoChannel

    def gotLength(self, length: int | None) -> None:
        method, _, rest = self.channel.request_line.partition(b" ")
        path, _, version = rest.partition(b" ")
        self._echoing = method == b"POST" and path.partition(b"?")[0] == _ECHO_PATH
        if not self._echoing:
            super().gotLength(length)
            return
        self.method, self.path, self.uri, self.clientproto = method, _ECHO_PATH, path, version
        self.setHeader(b"content-type", b"application/octet-stream")
        if length is not None:
            self.setHeader(b"content-length", b"%d" % length)

    def handleContentChunk(self, data: bytes) -> None:
        if self._echoing:
            self.write(data)
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._echoing:
            self.finish()
        else:
            super().requestReceived(command, path, version)


class StoredEcho(Resource):
    """Sends a body back when all of it has arrived."""

    isLeaf = True

    def render_POST(self, request: Request) -> int:
        """Answer with the body, from where twisted.web has stored it."""
        request.setHeader(b"content-type", b"application/octet-stream")
        content = _content(request)
        request.setHeader(b"content-length", b"%d" % _size(content))

        def finish(_: object) -> None:
            request.finish()

        def client_gone(_: Failure) -> None:
            content.close()

        FileSender().beginFileTransfer(content, request).addCallbacks(finish, client_gone)
        return NOT_DONE_YET


class BytesReceived(Resource):
    """How many application bytes each listener with a bad certificate has received, as JSON."""

    isLeaf = True

    def __init__(self, received: Callable[[], Mapping[str, int]]) -> None:
        super().__init__()
        self._received = received

    def render_GET(self, request: Request) -> bytes:
        """Answer with the counts as they are now."""
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(self._received()).encode()


class UpstreamRoot(Resource):
    """The paths of this module, and httpbin for all others."""

    def __init__(self, httpbin: IResource, received: Callable[[], Mapping[str, int]]) -> None:
        super().__init__()
        self._httpbin = httpbin
        self.putChild(b"stored-echo", StoredEcho())
        demo = Resource()
        demo.putChild(b"bytes-received", BytesReceived(received))
        self.putChild(b"demo", demo)

    def getChild(self, path: bytes, request: Request) -> IResource:
        """httpbin, which wants the whole path; a chunked body has been collected by now and gets its length."""
        request.prepath = []
        request.postpath = [path, *(request.postpath or [])]
        if request.requestHeaders.hasHeader(b"transfer-encoding"):
            request.requestHeaders.removeHeader(b"transfer-encoding")
            request.requestHeaders.setRawHeaders(b"content-length", [b"%d" % _size(_content(request))])
        return self._httpbin


class UpstreamSite(Site):
    """The site of one `UpstreamRoot`, with an access log of its own."""

    protocol = cast(Any, EchoChannel)  # annotated as if only twisted.web's own would do

    def __init__(self, root: IResource, access_log: AccessLog) -> None:
        super().__init__(root, requestFactory=functools.partial(EchoRequest, parsePOSTFormSubmission=False))
        self._access_log = access_log

    def log(self, request: HTTPRequest) -> None:
        """Called by each request as it finishes."""
        path = request.uri.partition(b"?")[0]
        self._access_log(
            request.method.decode("latin-1"), path.decode("latin-1"), int(request.code), int(request.sentLength)
        )


def httpbin_resource(reactor: IReactorFromThreads) -> IResource:
    """httpbin's application as a resource, with threads of its own.

    :raises ImportError: httpbin, a development dependency, is not installed.
    """
    application = importlib.import_module("httpbin").app
    threads = ThreadPool(0, _THREADS, name="httpbin")
    threads.threadFactory = cast(Any, functools.partial(threading.Thread, daemon=True))  # any factory will do
    threads.start()
    return WSGIResource(reactor, threads, application)


def _content(request: HTTPRequest) -> IO[bytes]:
    if request.content is None:
        raise RuntimeError("the request has no body yet")
    content: IO[bytes] = request.content
    return content


def _size(content: IO[bytes]) -> int:
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    return size
