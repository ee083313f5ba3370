"""The chunked transfer coding."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.chunked import LAST_CHUNK, ChunkedDecoder, ChunkError, encode_chunk

#: Bodies that are no chunked bodies (S5), each for its own reason.
MALFORMED = {
    "no size": b"\r\n",
    "prefixed size": b"0x2\r\nab\r\n",
    "signed size": b"+2\r\nab\r\n",
    "underscored size": b"1_0\r\n",
    "size with a space before it": b" 2\r\nab\r\n",
    "17 digits": b"00000000000000001\r\na\r\n",
    "2^63": b"8000000000000000\r\n",
    "bare LF after the size": b"2\nab\r\n",
    "bare LF after the data": b"2\r\nab\n",
    "data longer than its size": b"2\r\nabc\r\n",
    "extension without a name": b"2;\r\nab\r\n",
    "extension with a control": b"2;a=\x01\r\nab\r\n",
    "extension quote left open": b'2;a="b\r\nab\r\n',
    "size line without an end": b"2;a=" + b"b" * 300,
    "trailer without a colon": b"0\r\nabc\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nabc : d\r\n\r\n",
    "folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "too many trailers": b"0\r\n" + b"a: b\r\n" * 11 + b"\r\n",
    "too long a trailer": b"0\r\na: " + b"b" * 100 + b"\r\n\r\n",
    "trailer without an end": b"0\r\na: " + b"b" * 200,
}


class ChunkedTests(SynchronousTestCase):
    """Reading and writing it."""

    def test_chunks_come_back(self) -> None:
        """What is chunked is unchunked; an empty chunk, which would end the body, is refused."""
        decoder = ChunkedDecoder(100, 10)
        content, rest = decoder.decode(b"".join(encode_chunk(b"x" * 300)) + b"0\r\n\r\nrest")
        self.assertEqual((content, rest, decoder.done), (b"x" * 300, b"rest", True))
        self.assertRaises(ValueError, encode_chunk, b"")

    def test_malformed(self) -> None:
        """Anything but a chunked body is refused, whole and byte by byte."""
        for name, body in MALFORMED.items():
            self.assertRaises(ChunkError, ChunkedDecoder(100, 10).decode, body)
            decoder = ChunkedDecoder(100, 10)
            try:
                for byte in body:
                    decoder.decode(bytes([byte]))
            except ChunkError:
                continue
            self.fail(f"{name} was accepted byte by byte")

    def test_extensions_and_trailers_are_dropped(self) -> None:
        """What is well formed and means nothing here is read and forgotten."""
        body = b'2;a;b=c; d="e\\"f"\r\nab\r\n0;x\r\nTrailer: yes\r\n\r\nnext'
        decoder = ChunkedDecoder(100, 10)
        self.assertEqual(decoder.decode(body), (b"ab", b"next"))
        self.assertTrue(decoder.done)

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(0, 400), max_size=8))
    def test_any_chunks_any_split(self, chunks: list[bytes], cuts: list[int]) -> None:
        """However a body is chunked and however that is cut, the same content comes out, and what follows stays."""
        coded = b"".join(b"".join(encode_chunk(chunk)) for chunk in chunks) + LAST_CHUNK
        edges = sorted({0, len(coded), *(min(cut, len(coded)) for cut in cuts)})
        decoder = ChunkedDecoder(100, 10)
        content = b""
        for start, end in itertools.pairwise(edges):
            piece, rest = decoder.decode(coded[start:end])
            content += piece
            self.assertEqual(rest, b"")
        self.assertEqual((content, decoder.done), (b"".join(chunks), True))
        self.assertEqual(decoder.decode(b"next"), (b"", b"next"))
