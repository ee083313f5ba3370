"""Bytes to HTTP/1.1 messages: llhttp reads the head, this module decides its framing and hands out the body.

One reader serves one connection and one direction. It is fed whatever arrives and asked for what it can give:
`read_head`, then `read_body` until `complete`, then `next_message`. It looks at nothing beyond the current message, so
pipelined requests wait in it, unparsed. After an error it gives nothing more, because what follows a message of unknown
length cannot be trusted. An error names the field concerned and never shows a value (`faults`).

Where RFC 9112 leaves a recipient the choice between repairing and refusing, this refuses: a proxy that repairs is one
half of a request smuggling attack.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

import httptools

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.chunked import ChunkedDecoder, ChunkError
from nitroproxy.http1.faults import longest_field, misshapen_line, odd_byte, shown
from nitroproxy.http1.framing import HeadFields, offered_protocols
from nitroproxy.http1.headers import members
from nitroproxy.http1.messages import CHUNKED, UNTIL_CLOSE, Limits, Request, Response
from nitroproxy.target import NOT_ASCII

_HEAD_END: Final = b"\r\n\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
#: Everything a head may consist of: HTAB, CR, LF, visible ASCII and obs-text (RFC 9110 section 5.5).
_HEAD_BYTES: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
#: Methods that stand in RFC 9110 section 9.3 and RFC 5789.
_KNOWN_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}
)
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")
_STOPPED_AT_UPGRADE: Final = "Pause on CONNECT/Upgrade"


def _words_of(error: httptools.HttpParserError) -> str:
    """llhttp's own words, which name the field where a field's value is at fault."""
    part = "request target" if isinstance(error, httptools.HttpParserInvalidURLError) else "head"
    return f"the {part} is malformed: {error.__context__ or error}"


class _Reader(ABC):
    """What both directions share: finding the end of a head, and the body."""

    #: The kind of a violation: the client's fault or the upstream's.
    _blame: Kind
    _too_large: Kind
    #: Empty lines that are skipped before a message.
    _skipped: int

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._searched = 0
        self._empty_lines = self._skipped
        self._left = 0
        self._chunks: ChunkedDecoder | None = None
        self._in_body = False
        self._error: ProxyError | None = None

    def limit(self, limits: Limits) -> None:
        """Put other limits in force, from the next message on."""
        self._limits = limits

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not handed out yet."""
        return len(self._buffer)

    @property
    def complete(self) -> bool:
        """The current message has been read completely."""
        return self._in_body and (self._chunks.done if self._chunks is not None else self._left == 0)

    def next_message(self) -> None:
        """Begin with the next message, once this one is `complete`."""
        self._in_body = False
        self._chunks = None
        self._searched = 0
        self._empty_lines = self._skipped

    def take_rest(self) -> bytes:
        """Everything that was fed and not handed out: the first bytes of a tunnel."""
        rest, self._buffer = self._buffer, b""
        return rest

    def read_body(self) -> bytes:
        """The body's next bytes, empty when none are here now.

        :raises ProxyError: for a malformed chunked body.
        """
        data = self._buffer
        if self._error is not None:
            raise self._error
        if not data:
            return b""
        if self._chunks is not None:
            try:
                content, self._buffer = self._chunks.decode(data)
            except ChunkError as error:
                raise self._fail(self._blame, f"malformed chunked body: {error}") from error
            return content
        if self._left == UNTIL_CLOSE:
            self._buffer = b""
            return data
        if len(data) <= self._left:
            self._buffer = b""
            self._left -= len(data)
            return data
        piece, self._buffer = data[: self._left], data[self._left :]
        self._left = 0
        return piece

    def _read_head_bytes(self) -> bytes | None:
        """One whole head with its empty line, or None until it has arrived."""
        if self._error is not None:
            raise self._error
        while self._empty_lines and self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            self._searched = 0
            self._empty_lines -= 1
        buffer = self._buffer
        if not buffer:
            return None
        end = buffer.find(_HEAD_END, max(0, self._searched - 3))
        seen = buffer if end < 0 else buffer[: end + 4]
        if len(seen) > self._limits.header_bytes:
            most = self._limits.header_bytes
            raise self._fail(
                self._too_large_kind(seen), f"the head is over {most} bytes: {longest_field(seen)} of them"
            )
        if end < 0:
            if _BARE_LF.search(seen, max(0, self._searched - 1)):
                raise self._fail(self._blame, odd_byte(seen) or "the head holds a bare LF")
            self._searched = len(buffer)
            self._check_partial_head(buffer)
            return None
        lines = seen.count(b"\r\n")
        if seen.count(b"\n") != lines or seen.count(b"\r") != lines or seen.translate(None, _HEAD_BYTES):
            raise self._fail(self._blame, odd_byte(seen) or "the head holds a control character")
        self._buffer = buffer[end + 4 :]
        self._searched = 0
        return seen

    def _parse(
        self, head: bytes, parser_type: type[httptools.HttpRequestParser | httptools.HttpResponseParser]
    ) -> HeadFields:
        fields = HeadFields()
        known = True
        try:
            parser_type(fields).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # It stops after the head of a CONNECT or an upgrade, which is all there is.
        except httptools.HttpParserInvalidMethodError as error:
            if _METHOD.match(head) is None:
                raise self._fail(self._blame, f"{shown(head.partition(b' ')[0])} is not a method") from error
            method = head.partition(b" ")[0]
            if method.upper() in _KNOWN_METHODS:
                # An upstream that ignores case would frame the response by the other method.
                text = f"methods are case-sensitive: {shown(method.upper())}, not {shown(method)}"
                raise self._fail(Kind.METHOD_NOT_ALLOWED, text) from error
            known = False
        except httptools.HttpParserError as error:
            # llhttp stops there too when the Upgrade field is empty, which httptools does not take for an upgrade.
            if str(error) != _STOPPED_AT_UPGRADE:
                raise self._fail(self._blame, misshapen_line(head) or _words_of(error)) from error
        if not known:
            # llhttp reads the methods that it knows and no others; a proxy passes them all on (RFC 9110 section 9.1). A
            # method decides nothing of a request's framing but for CONNECT, which llhttp does know.
            return self._parse(b"POST" + head[head.index(b" ") :], parser_type)
        if b"_" in head and (name := fields.imitation()) is not None:
            raise self._fail(self._blame, f"the field name {shown(name)} imitates one that frames the message")
        if len(fields.in_order) > self._limits.header_count:
            most = self._limits.header_count
            name = fields.in_order[most][0]
            raise self._fail(self._too_large, f"more than {most} header fields: {shown(name)} is one too many")
        return fields

    def _begin_body(self, length: int) -> None:
        self._in_body = True
        self._left = length
        if length == CHUNKED:
            self._chunks = ChunkedDecoder(self._limits.header_bytes, self._limits.header_count)

    def _fail(self, kind: Kind, detail: str) -> ProxyError:
        self._error = ProxyError(kind, detail)
        self._buffer = b""
        return self._error

    def _too_large_kind(self, head: bytes) -> Kind:
        return self._too_large

    @abstractmethod
    def _check_partial_head(self, partial: bytes) -> None: ...


class RequestReader(_Reader):
    """Reads the requests of one client connection."""

    #: What they are called in metrics and logs, whatever their method; empty: by that.
    label = b""
    _blame = Kind.MALFORMED_REQUEST
    _too_large = Kind.HEADERS_TOO_LARGE
    #: Old clients send one too many after a body; a server should skip at least one (RFC 9112 section 2.2).
    _skipped = 2

    def read_head(self) -> Request | None:
        """The next request's head, or None until it has arrived whole.

        :raises ProxyError: for anything but a valid HTTP/1.0 or 1.1 request with one unambiguous length.
        """
        head = self._read_head_bytes()
        if head is None:
            return None
        start_line = head[: head.index(b"\r\n")]
        parts = start_line.split(b" ")
        if len(parts) != 3 or not parts[1]:
            detail = f"the request line has {len(parts)} parts, not three: method, target, version"
            raise self._fail(self._blame, f"{detail}; a space in a target is %20")
        method, target, version = parts
        if len(target) > self._limits.target_bytes:
            raise self._fail(Kind.TARGET_TOO_LONG, f"the request target is over {self._limits.target_bytes} bytes")
        if not target.isascii():
            raise self._fail(self._blame, NOT_ASCII)
        if b"\t" in target:
            raise self._fail(self._blame, "the request target holds a tab, which is %09 there")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise self._fail(self._blame, f"the protocol version {shown(version)} is not HTTP/1.1 or HTTP/1.0")
        fields = self._parse(head, httptools.HttpRequestParser)
        try:
            request = self._request(method, target, version == b"HTTP/1.0", fields)
        except ValueError as error:
            raise self._fail(self._blame, str(error)) from error
        self._begin_body(request.content_length)
        return request

    def _request(self, method: bytes, target: bytes, http10: bool, fields: HeadFields) -> Request:
        values = fields.values
        hosts = values.get(b"host", [])
        if len(hosts) > 1 or (not hosts and not http10):
            raise ValueError("there is no Host field" if not hosts else "there is more than one Host field")
        if hosts and _HOST.fullmatch(hosts[0]) is None:
            raise ValueError("the Host field is not a host with an optional port")
        length = fields.content_length()
        codings = fields.transfer_codings()
        if codings is not None:
            if length is not None or http10:
                where = "in an HTTP/1.0 request" if http10 else "beside Content-Length"
                raise ValueError(f"the Transfer-Encoding field stands {where}")
            if codings != b"chunked":
                detail = f"the Transfer-Encoding field is {shown(codings)}: this proxy understands 'chunked' alone"
                raise self._fail(Kind.UNSUPPORTED_CODING, detail)
            length = CHUNKED
        if method == b"CONNECT" and length:
            raise ValueError("a CONNECT request has a body, by its Content-Length or Transfer-Encoding field")
        options = fields.connection_options()
        expectations = values.get(b"expect")
        if expectations is not None and {value.lower() for value in members(expectations)} - {b"100-continue"}:
            raise self._fail(Kind.EXPECTATION_FAILED, "the Expect field asks for something other than '100-continue'")
        upgrade = offered_protocols(values.get(b"upgrade", [])) if b"upgrade" in options and not http10 else None
        return Request(
            method=method,
            target=target,
            fields=fields,
            http10=http10,
            content_length=length or 0,
            keep_alive=b"close" not in options and (not http10 or b"keep-alive" in options),
            connection_options=options,
            expects_continue=bool(members(expectations or ())) and not http10 and bool(length),
            upgrade=upgrade,
        )

    def _check_partial_head(self, partial: bytes) -> None:
        if b"\r\n" not in partial and len(partial) > self._limits.target_bytes + 64:
            raise self._fail(Kind.TARGET_TOO_LONG, f"the request line is over {self._limits.target_bytes} bytes")

    def _too_large_kind(self, head: bytes) -> Kind:
        return self._too_large if b"\r\n" in head[: self._limits.target_bytes + 64] else Kind.TARGET_TOO_LONG


class ResponseReader(_Reader):
    """Reads the responses of one upstream connection."""

    _blame = Kind.HTTP_PROTOCOL_ERROR
    _too_large = Kind.HTTP_RESPONSE_HEADERS_TOO_LARGE
    _skipped = 0

    def read_head(self, method: bytes) -> Response | None:
        """The next response's head, or None until it has arrived whole. An interim response is `complete` at once.

        :param method: the method of the request it answers, which decides whether a body follows.
        :raises ProxyError: for anything but a valid response with one unambiguous length.
        """
        head = self._read_head_bytes()
        if head is None:
            return None
        match = _STATUS_LINE.fullmatch(head[: head.index(b"\r\n")])
        if match is None:
            raise self._fail(self._blame, "the status line is not 'HTTP/1.1 status reason' with a status of 100 to 599")
        fields = self._parse(head, httptools.HttpResponseParser)
        http10 = head.startswith(b"HTTP/1.0")
        try:
            response = self._response(int(match[1]), match[2] or b"", http10, fields, method)
        except ValueError as error:
            raise self._fail(self._blame, str(error)) from error
        self._begin_body(response.content_length)
        return response

    def _response(self, status: int, reason: bytes, http10: bool, fields: HeadFields, method: bytes) -> Response:
        """Decide the framing (RFC 9112 section 6.3)."""
        length = declared = fields.content_length()
        codings = fields.transfer_codings()
        if codings is not None:
            if length is not None or http10:
                where = "in an HTTP/1.0 response" if http10 else "beside Content-Length"
                raise ValueError(f"the Transfer-Encoding field stands {where}")
            if codings != b"chunked":
                raise ValueError(
                    f"the Transfer-Encoding field is {shown(codings)}: this proxy understands 'chunked' alone"
                )
        options = fields.connection_options()
        if status < 200 or status in (204, 304) or method == b"HEAD" or (method == b"CONNECT" and status < 300):
            length = 0
        elif codings is not None:
            length = CHUNKED
        elif length is None:
            length = UNTIL_CLOSE
        keep_alive = length != UNTIL_CLOSE and b"close" not in options and (not http10 or b"keep-alive" in options)
        return Response(status, reason, fields, length, keep_alive, options, declared)

    def end_of_input(self, clean: bool) -> None:
        """The connection ended; a body that lasts until then is now complete.

        :param clean: the peer ended it on purpose (TLS close_notify, RFC 8446 section 6.1; FIN without TLS).
        :raises ProxyError: when the message at hand was not complete.
        """
        if self._in_body and self._left == UNTIL_CLOSE and self._chunks is None and clean:
            self._left = 0
        elif not self.complete:
            raise self._fail(Kind.HTTP_RESPONSE_INCOMPLETE, "the connection ended before the response was complete")

    def _check_partial_head(self, partial: bytes) -> None:
        if not partial.startswith(b"HTTP/"[: len(partial)]):
            raise self._fail(self._blame, "the response does not start with 'HTTP/'")
