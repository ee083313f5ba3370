"""The destination under load: TLS, and answers that can be checked to the last byte.

Every response carries the request's ``X-Trial`` field, so that mixed-up answers show. ``GET /bytes/N/SEED`` gives N
bytes that `content` makes of SEED; ``?framing=`` says how they are framed, ``?pace=`` how many seconds pass between
two pieces. ``POST /echo`` gives the body back while it arrives, ``POST /digest`` its SHA-256. ``GET /whoami`` names the
user that the *connection* is logged in for, by ``Authorization: NTLM name`` on an earlier request or this one, or
answers 401: the rule of NTLM without its cryptography.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11

_PIECE = 65536


def content(size: int, seed: int) -> Iterator[bytes]:
    """*size* bytes that no other *seed* gives, in pieces."""
    block = hashlib.shake_128(b"%d" % seed).digest(_PIECE - 8)
    for start in range(0, size, _PIECE):
        yield (start.to_bytes(8, "big") + block)[: size - start]


def digest(size: int, seed: int) -> str:
    """The SHA-256 of `content`."""
    whole = hashlib.sha256()
    for piece in content(size, seed):
        whole.update(piece)
    return whole.hexdigest()


class Upstream:
    """Serves until closed.

    :ivar served: complete requests.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._server: asyncio.Server | None = None
        self.served = 0

    async def listen(self) -> int:
        """Listen on a free port of loopback; returns it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled: the trial is over.
        with contextlib.suppress(OSError, h11.RemoteProtocolError, asyncio.CancelledError):
            await _Connection(self, reader, writer).serve()
        writer.close()


class _Connection:
    def __init__(self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self._user = b""

    async def serve(self) -> None:
        while True:
            request = await self._next_event()
            if not isinstance(request, h11.Request):
                return
            await self._answer(request)
            self._upstream.served += 1
            if self._http.our_state is h11.MUST_CLOSE or self._http.states != {
                h11.SERVER: h11.DONE,
                h11.CLIENT: h11.DONE,
            }:
                return
            self._http.start_next_cycle()

    async def _next_event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(65536))

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise ConnectionResetError("the client went away")

    async def _answer(self, request: h11.Request) -> None:
        url = urlsplit(request.target.decode("ascii"))
        options = {name: values[0] for name, values in parse_qs(url.query).items()}
        fields = [(name, value) for name, value in request.headers if name == b"x-trial"]
        if url.path == "/echo":
            lengths = [(name, value) for name, value in request.headers if name == b"content-length"]
            await self._send(h11.Response(status_code=200, headers=fields + lengths))
            async for data in self._body():
                await self._send(h11.Data(data=data))
            await self._send(h11.EndOfMessage())
            return
        received = hashlib.sha256()
        async for data in self._body():
            received.update(data)
        if url.path == "/whoami":
            await self._name_user(request, fields)
            return
        if url.path == "/digest":
            answer = received.hexdigest().encode()
            await self._send(h11.Response(status_code=200, headers=[*fields, (b"Content-Length", b"%d" % len(answer))]))
            await self._send(h11.Data(data=answer))
        else:
            _, _, size, seed = url.path.split("/")
            framing = {
                "length": (b"Content-Length", size.encode()),
                "chunked": (b"Transfer-Encoding", b"chunked"),
                "close": (b"Connection", b"close"),
            }[options.get("framing", "length")]
            if options.get("framing") == "close":
                await self._until_close(fields, int(size), int(seed), float(options.get("pace", 0)))
                return
            await self._send(h11.Response(status_code=200, headers=[*fields, framing]))
            for piece in content(int(size), int(seed)):
                await asyncio.sleep(float(options.get("pace", 0)))
                await self._send(h11.Data(data=piece))
        await self._send(h11.EndOfMessage())

    async def _name_user(self, request: h11.Request, fields: list[tuple[bytes, bytes]]) -> None:
        for name, value in request.headers:
            if name == b"authorization" and value.startswith(b"NTLM "):
                self._user = value.removeprefix(b"NTLM ")
        length = (b"Content-Length", b"%d" % len(self._user))
        challenge = [] if self._user else [(b"WWW-Authenticate", b"NTLM")]
        status = 200 if self._user else 401
        await self._send(h11.Response(status_code=status, headers=[*fields, *challenge, length]))
        if self._user:
            await self._send(h11.Data(data=self._user))
        await self._send(h11.EndOfMessage())

    async def _until_close(self, fields: list[tuple[bytes, bytes]], size: int, seed: int, pace: float) -> None:
        """A body delimited by the end of the connection: h11 by itself would chunk it."""
        lines = [b"HTTP/1.1 200 OK", *(name + b": " + value for name, value in fields), b"Connection: close", b"", b""]
        self._writer.write(b"\r\n".join(lines))
        for piece in content(size, seed):
            await asyncio.sleep(pace)
            self._writer.write(piece)
            await self._writer.drain()
        raise ConnectionResetError("said all")
