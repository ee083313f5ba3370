"""The PROXY protocol, read and written: whole, byte by byte, and with what follows."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.preface.proxy_protocol import Header, HeaderError, HeaderReader, Peers

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
PEERS = Peers(("192.0.2.1", 4321), ("198.51.100.2", 443))
PEERS_V6 = Peers(("2001:db8::1", 4321), ("2001:db8::2", 443))
#: From section 2.2 of the specification: PROXY over TCP on IPv4.
IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 4321, 443)


def v2(command: int, family: int, content: bytes) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(content)) + content


#: Headers and what they say.
GOOD = {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 443\r\n": Header(PEERS),
    b"PROXY TCP6 2001:db8::1 2001:0db8:0::2 4321 443\r\n": Header(PEERS_V6),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": Header(Peers(("0.0.0.0", 0), ("255.255.255.255", 65535))),
    b"PROXY UNKNOWN\r\n": Header(),
    b"PROXY UNKNOWN whatever stands here\r\n": Header(),
    v2(0x21, 0x11, IPV4): Header(PEERS),
    v2(0x20, 0x00, b""): Header(),
    v2(0x20, 0x11, IPV4): Header(),
    v2(0x21, 0x00, b""): Header(),
    v2(0x21, 0x31, bytes(216)): Header(),
    v2(0x21, 0x12, IPV4): Header(),
    v2(0x21, 0x11, IPV4 + b"\x04\x00\x00" + b"\x05\x00\x02id" + b"\x03\x00\x041234"): Header(PEERS, b"id"),
    v2(0x20, 0x00, b"\x05\x00\x02id"): Header(None, b"id"),
}
#: What is none.
BAD = (
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 4321 443\r\n",
    b"PROXY  TCP4 192.0.2.1 198.51.100.2 4321 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 443 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 +432 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 04321 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 65536\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 99999999999999999999\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 4321 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 4321 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 4321 443\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.2 4321 443\r\n",
    b"PROXY TCP4 \xd9\xa1.0.2.1 198.51.100.2 4321 443\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 1000,
    v2(0x11, 0x11, IPV4),
    v2(0x22, 0x11, IPV4),
    v2(0x21, 0x13, IPV4),
    v2(0x21, 0x41, IPV4),
    v2(0x21, 0x11, IPV4[:-1]),
    v2(0x21, 0x21, IPV4),
    v2(0x21, 0x11, IPV4 + b"\x05\x00"),
    v2(0x21, 0x11, IPV4 + b"\x05\x00\x03id"),
    v2(0x21, 0x11, IPV4 + b"\x05\x00\x81" + bytes(129)),
    V2 + struct.pack("!BBH", 0x21, 0x11, 4097),
)


class ReaderTests(SynchronousTestCase):
    """Reading."""

    def read(self, data: bytes, size: int) -> tuple[Header, bytes]:
        """Feed *data* in pieces of *size* bytes; the header and what is left after it."""
        reader = HeaderReader()
        found: Header | None = None
        for begin in range(0, len(data), size):
            reader.feed(data[begin : begin + size])
            if found is None:
                found = reader.read()
        assert found is not None, data
        self.assertEqual(reader.buffered, len(rest := reader.take_rest()))
        return found, rest

    def test_good(self) -> None:
        """Each header, whole and byte by byte, with and without what follows it."""
        for data, header in GOOD.items():
            for rest in (b"", b"\x16\x03\x01", data):
                for size in (1, 7, 1 << 20):
                    self.assertEqual(self.read(data + rest, size), (header, rest), data)

    def test_bad(self) -> None:
        """Each that is none is refused, whole and byte by byte, and before more than 4 KiB are held."""
        for data in BAD:
            for size in (1, 1 << 20):
                self.assertRaises(HeaderError, self.read, data + bytes(8192), size)

    def test_cut_off(self) -> None:
        """No beginning of a header is taken for one, or refused."""
        for data in GOOD:
            for end in range(len(data)):
                reader = HeaderReader()
                reader.feed(data[:end])
                self.assertIsNone(reader.read(), data[:end])

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is a header, the beginning of one, or refused."""
        for start in (b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11"):
            reader = HeaderReader()
            reader.feed(start + data)
            try:
                reader.read()
            except HeaderError:
                continue


class WriterTests(SynchronousTestCase):
    """Writing."""

    def test_round_trip(self) -> None:
        """What is written is read as the same."""
        for header in (Header(PEERS), Header(PEERS_V6), Header(), Header(PEERS, b"an-id"), Header(None, b"an-id")):
            reader = HeaderReader()
            reader.feed(header.to_bytes() + b"rest")
            self.assertEqual(reader.read(), header)
            self.assertEqual(reader.take_rest(), b"rest")

    def test_specified(self) -> None:
        """Version 2, as the specification has it."""
        self.assertEqual(Header(PEERS).to_bytes(), v2(0x21, 0x11, IPV4))
        self.assertEqual(Header().to_bytes(), v2(0x20, 0x00, b""))

    def test_two_families(self) -> None:
        """Addresses of two families go as IPv6, the one as its mapped form; a scope is left out."""
        header = Header(Peers(("192.0.2.1", 1), ("fe80::1%lo", 2)))
        reader = HeaderReader()
        reader.feed(header.to_bytes())
        mapped = str(ip_address("::ffff:192.0.2.1"))  # Written in two ways, depending on the version of Python.
        self.assertEqual(reader.read(), Header(Peers((mapped, 1), ("fe80::1", 2))))

    def test_id(self) -> None:
        """An id is cut to what the protocol takes."""
        self.assertEqual(Header(PEERS).with_id(bytes(200)).unique_id, bytes(128))
