"""A client that asks and judges: an answer is right, a failure that can be seen, or wrong."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import itertools
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import h11

from tests.load.faults import Place, connect
from tests.load.upstream import content, digest

_TRIALS = itertools.count(1)


class Verdict(enum.Enum):
    """What became of a request."""

    RIGHT = "right"
    #: A problem document of the proxy's.
    TOLD = "told"
    #: The connection broke off before the answer was complete.
    BROKEN = "broken"
    #: Complete, and not what was asked for: what must never be.
    WRONG = "wrong"
    #: Complete, and somebody else's: what must never be either.
    MIXED = "mixed"


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    headers: dict[bytes, bytes]
    size: int
    sha256: str
    #: The body's first 64 bytes.
    start: bytes = b""


class BrokenOff(Exception):
    """The connection ended before the response was complete."""


class Connection:
    """One connection to a proxy, or through one.

    :param prefix: what goes before the path of each target: the path form's URL.
    :ivar moving: set when the first piece of a body has arrived.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: str) -> None:
        self._reader = reader
        self._writer = writer
        self._prefix = prefix
        self._http = h11.Connection(h11.CLIENT)
        self.usable = True
        #: Whom it has logged in for.
        self.user = ""
        #: Nothing can be asked any more.
        self._last = False
        #: Seconds that it pauses before it reads, and in the middle of a body that it sends.
        self.pause = 0.0
        self.moving = asyncio.Event()

    @classmethod
    async def path_form(cls, place: Place, url: str) -> Connection:
        """To a proxy, asking in path form."""
        return cls(*await connect(place), f"/{url}")

    @classmethod
    async def tunnel(cls, place: Place, upstream_port: int, context: ssl.SSLContext) -> Connection:
        """Through a proxy by CONNECT, with TLS of our own.

        :raises BrokenOff: when there is no tunnel.
        """
        reader, writer = await connect(place)
        name = f"localhost:{upstream_port}"
        writer.write(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise BrokenOff(head.partition(b"\r\n")[0].decode())
            await writer.start_tls(context, server_hostname="localhost")
        except (OSError, EOFError, ssl.SSLError) as error:
            writer.transport.abort()
            raise BrokenOff(str(error)) from error
        return cls(reader, writer, "")

    @property
    def ended(self) -> bool:
        """The other end has ended it, or this one has."""
        return not self.usable or self._reader.at_eof() or self._writer.is_closing()

    def abort(self) -> None:
        """Go away at once."""
        self.usable = False
        self._writer.transport.abort()

    def close(self) -> None:
        """Go away in order: to the other end it looks like a half-close."""
        self.usable = False
        self._writer.close()

    def half_close(self) -> None:
        """Say that nothing more will be asked, and read on. Not with TLS, which cannot."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
            self._last = True

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Iterable[bytes] = (),
        length: int | None = 0,
        trial: int = 0,
        identity: str = "",
        user: str = "",
        last: bool = False,
    ) -> Answer:
        """Send a request and read its answer.

        :param length: of the body; None: chunked.
        :param identity: its X-Request-Id.
        :param user: whom to log in for.
        :param last: half-close when it has been sent.
        :raises BrokenOff: when the answer is not complete.
        """
        fields = [("Host", "localhost"), ("X-Trial", str(trial))]
        if identity:
            fields.append(("X-Request-Id", identity))
        if user:
            fields.append(("Authorization", f"NTLM {user}"))
        if length is None:
            fields.append(("Transfer-Encoding", "chunked"))
        elif length:
            fields.append(("Content-Length", str(length)))
        sending = asyncio.create_task(self._send(method, path, fields, body, last=last))
        try:
            await asyncio.sleep(self.pause)
            return await self._answer()
        except (OSError, EOFError, h11.ProtocolError, ssl.SSLError) as error:
            self.abort()
            raise BrokenOff(str(error)) from error
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            if not sending.done():
                sending.cancel()
                self.usable = False
            await asyncio.gather(sending, return_exceptions=True)
            self._turn()

    async def read(self, path: str) -> bytes:
        """The body of a page.

        :raises BrokenOff: when it is not complete.
        """
        await self._send("GET", path, [("Host", "localhost")], ())
        response = await self._event()
        if not isinstance(response, h11.Response):
            raise BrokenOff("no response")
        return b"".join([data async for data in self._data()])

    async def _send(
        self, method: str, path: str, fields: list[tuple[str, str]], body: Iterable[bytes], *, last: bool = False
    ) -> None:
        request = h11.Request(method=method, target=self._prefix + path, headers=fields)
        await self._write(request)
        for piece in body:
            await self._write(h11.Data(data=piece))
            await asyncio.sleep(self.pause)
        await self._write(h11.EndOfMessage())
        if last:
            self.half_close()

    async def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _answer(self) -> Answer:
        response: Any = await self._event()
        while isinstance(response, h11.InformationalResponse):
            response = await self._event()
        if not isinstance(response, h11.Response):
            raise BrokenOff("no response")
        size, sha256, start = 0, hashlib.sha256(), b""
        async for data in self._data():
            size += len(data)
            sha256.update(data)
            start = (start + data)[:64]
        return Answer(response.status_code, dict(response.headers), size, sha256.hexdigest(), start)

    async def _data(self) -> AsyncIterator[bytes]:
        while True:
            event: Any = await self._event()
            if isinstance(event, h11.EndOfMessage):
                return
            self.moving.set()
            yield bytes(event.data)

    async def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.ConnectionClosed):
                raise EOFError("the connection ended")
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(65536))

    def _turn(self) -> None:
        if not self._last and self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
        else:
            self.abort()


async def get(connection: Connection, size: int, options: str = "") -> Verdict:
    """Ask for *size* bytes of our own."""
    trial = next(_TRIALS)
    return await _judged(
        connection.ask("GET", f"/bytes/{size}/{trial}{options}", trial=trial), trial, digest(size, trial)
    )


async def echo(connection: Connection, size: int, *, chunked: bool) -> Verdict:
    """Send *size* bytes and ask for them back."""
    trial = next(_TRIALS)
    asked = connection.ask("POST", "/echo", body=content(size, trial), length=None if chunked else size, trial=trial)
    return await _judged(asked, trial, digest(size, trial))


async def upload(connection: Connection, size: int) -> Verdict:
    """Send *size* bytes and ask for their SHA-256."""
    trial = next(_TRIALS)
    asked = connection.ask("POST", "/digest", body=content(size, trial), length=size, trial=trial)
    expected = hashlib.sha256(digest(size, trial).encode()).hexdigest()
    return await _judged(asked, trial, expected)


async def last_get(connection: Connection, size: int) -> Verdict:
    """Ask for *size* bytes, half-close, and be answered all the same."""
    trial = next(_TRIALS)
    asked = connection.ask("GET", f"/bytes/{size}/{trial}", trial=trial, last=True)
    return await _judged(asked, trial, digest(size, trial))


async def who_am_i(connection: Connection, size: int) -> Verdict:
    """Without a login, ask which user the destination takes this client for: it must be none."""
    return await _as_user(connection, "", log_in=False)


async def log_in(connection: Connection, size: int) -> Verdict:
    """Log in, and ask twice which user the destination takes this client for: that user, or none any more."""
    user = f"user-{next(_TRIALS)}"
    verdict = await _as_user(connection, user, log_in=True)
    for _ in range(2):
        if verdict is Verdict.RIGHT and connection.usable:
            verdict = await _as_user(connection, user, log_in=False)
    return verdict


async def _as_user(connection: Connection, user: str, *, log_in: bool) -> Verdict:
    """One step; *user* is who this client may be taken for. It stays so for as long as the connection does."""
    user = connection.user = user or connection.user
    trial = next(_TRIALS)
    try:
        answer = await connection.ask("GET", "/whoami", trial=trial, user=user if log_in else "")
    except BrokenOff:
        return Verdict.BROKEN
    if b"proxy-status" in answer.headers:
        return Verdict.TOLD
    taken_for = answer.start.decode("ascii", "replace")
    if answer.headers.get(b"x-trial") != b"%d" % trial or taken_for not in ("", user):
        return Verdict.MIXED
    if log_in:
        return Verdict.RIGHT if (answer.status, taken_for) == (200, user) else Verdict.WRONG
    return Verdict.RIGHT if answer.status == (200 if taken_for else 401) else Verdict.WRONG


async def _judged(asked: Any, trial: int, sha256: str) -> Verdict:
    try:
        answer: Answer = await asked
    except BrokenOff:
        return Verdict.BROKEN
    if b"proxy-status" in answer.headers:
        return Verdict.TOLD
    if answer.headers.get(b"x-trial") != b"%d" % trial:
        return Verdict.MIXED
    return Verdict.RIGHT if (answer.status, answer.sha256) == (200, sha256) else Verdict.WRONG


def names(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, int]]:
    """How often each verdict was given."""
    found = list(verdicts)
    for verdict in Verdict:
        yield verdict.value, found.count(verdict)
