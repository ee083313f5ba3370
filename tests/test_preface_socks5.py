"""The beginning of a SOCKS connection: whole, byte by byte, and with what follows."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.preface.socks5 import SUCCEEDED, Handshake, reply

GREETING = b"\x05\x01\x00"
CHOSEN = b"\x05\x00"


def request(kind: int, address: bytes, port: int = 443, command: int = 1) -> bytes:
    """A request of a client."""
    return bytes([5, command, 0, kind]) + address + struct.pack("!H", port)


def name(text: bytes) -> bytes:
    """A name as an address."""
    return bytes([len(text)]) + text


#: Requests, and their destinations.
GOOD = {
    request(3, name(b"site.example")): b"site.example:443",
    request(3, name(b"Site.Example."), 8443): b"Site.Example.:8443",
    request(3, name(b"192.0.2.1")): b"192.0.2.1:443",
    request(3, name(b"2001:db8::1")): b"[2001:db8::1]:443",
    request(3, name(b"x" * 255), 65535): b"x" * 255 + b":65535",
    request(1, bytes([192, 0, 2, 1]), 5432): b"192.0.2.1:5432",
    request(4, bytes.fromhex("20010db8000000000000000000000001")): b"[2001:db8::1]:443",
}
#: Greetings that are accepted: without authentication among others.
GREETINGS = (GREETING, b"\x05\x02\x00\x02", b"\x05\x03\x01\x02\x00", b"\x05\xff" + bytes(255))


class HandshakeTests(SynchronousTestCase):
    """Reading."""

    def shake(self, data: bytes, size: int) -> tuple[bytes | None, bytes, bytes]:
        """Feed *data* in pieces of *size* bytes: the destination, what was answered, and what is left."""
        handshake = Handshake()
        destination, answered = None, b""
        for begin in range(0, len(data), size):
            handshake.feed(data[begin : begin + size])
            if destination is None:
                destination = handshake.read()
                answered += handshake.take_answer()
        self.assertEqual(handshake.over, destination is not None)
        self.assertEqual(handshake.buffered, len(rest := handshake.take_rest()))
        return destination, answered, rest

    def fails(self, data: bytes, size: int) -> tuple[Kind, bytes, bytes]:
        """The failure, what was answered before it, and what is answered to it."""
        handshake = Handshake()
        try:
            for begin in range(0, len(data), size):
                handshake.feed(data[begin : begin + size])
                handshake.read()
        except ProxyError as error:
            return error.kind, handshake.take_answer(), handshake.answer_to(error)
        self.fail(f"accepted: {data!r}")

    def test_good(self) -> None:
        """Each request after each greeting, whole and byte by byte, with and without what follows."""
        for greeting in GREETINGS:
            for asked, destination in GOOD.items():
                for rest in (b"", b"\x16\x03\x01", b"\x05\x01\x00"):
                    for size in (1, 5, 1 << 20):
                        self.assertEqual(self.shake(greeting + asked + rest, size), (destination, CHOSEN, rest))

    def test_cut_off(self) -> None:
        """No beginning is taken for the whole; the greeting alone is answered."""
        for asked in GOOD:
            whole = GREETING + asked
            for end in range(len(whole)):
                destination, answered, _ = self.shake(whole[:end], 1 << 20)
                self.assertIsNone(destination)
                self.assertEqual(answered, CHOSEN if end >= len(GREETING) else b"")

    def test_authentication(self) -> None:
        """A client that insists on a user name and password, or offers nothing, is refused in the greeting's words."""
        for greeting in (b"\x05\x01\x02", b"\x05\x02\x01\x02", b"\x05\x00"):
            for size in (1, 1 << 20):
                self.assertEqual(self.fails(greeting, size), (Kind.MALFORMED_REQUEST, b"", b"\x05\xff"))

    def test_other_versions(self) -> None:
        """SOCKS 4 is not spoken, nor a request of another version."""
        self.assertEqual(self.fails(b"\x04\x01\x00\x50", 1)[0], Kind.MALFORMED_REQUEST)
        kind, _, answer = self.fails(GREETING + b"\x04", 1)
        self.assertEqual((kind, answer), (Kind.MALFORMED_REQUEST, reply(1)))

    def test_refused_requests(self) -> None:
        """Other commands and address types are refused with their replies."""
        for asked, kind, code in (
            (request(1, bytes(4), command=2), Kind.METHOD_NOT_ALLOWED, 7),
            (request(1, bytes(4), command=3), Kind.METHOD_NOT_ALLOWED, 7),
            (request(1, bytes(4), command=0), Kind.METHOD_NOT_ALLOWED, 7),
            (request(2, bytes(4)), Kind.INVALID_TARGET, 8),
            (request(3, name(b"a:1")), Kind.INVALID_TARGET, 8),
            (request(3, name(b":\xff")), Kind.INVALID_TARGET, 8),
        ):
            self.assertEqual(self.fails(GREETING + asked, 1 << 20), (kind, CHOSEN, reply(code)))
            self.assertEqual(self.fails(GREETING + asked, 1)[0], kind)

    def test_replies(self) -> None:
        """Our failures, as SOCKS says them; what it has no word for is a general failure."""
        handshake = Handshake()
        handshake.feed(GREETING)
        handshake.read()
        codes = {
            Kind.DESTINATION_DENIED: 2,
            Kind.DESTINATION_NOT_ALLOWED: 2,
            Kind.ADDRESS_DENIED: 2,
            Kind.UNREACHABLE: 3,
            Kind.DNS_ERROR: 4,
            Kind.DNS_TIMEOUT: 4,
            Kind.CONNECTION_REFUSED: 5,
            Kind.CONNECTION_TIMEOUT: 6,
            Kind.RELAY_UNAVAILABLE: 1,
            Kind.CONNECTION_LIMIT_REACHED: 1,
            Kind.REQUEST_TIMEOUT: 1,
        }
        for kind, code in codes.items():
            self.assertEqual(handshake.answer_to(ProxyError(kind, "why")), reply(code), kind)
        self.assertEqual(reply(SUCCEEDED), bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes gives a destination, waits for more, or is refused."""
        for start in (b"", b"\x05", GREETING, GREETING + b"\x05\x01\x00"):
            try:
                self.shake(start + data, 1 << 20)
            except ProxyError:
                continue
