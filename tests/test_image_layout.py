"""The tables of the image format: what is written is read again, and every field has its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import (
    HEADER_BYTES,
    MAX_SECTIONS,
    MOST_BYTES,
    SECTION_HEADER_BYTES,
    Architecture,
    Header,
    Kind,
    Section,
    check_order,
    pack_crc,
    pack_section,
    unpack_header,
    unpack_section,
)

_numbers = st.integers(0, 2**64 - 1)


class HeaderTests(SynchronousTestCase):
    """The header of a file."""

    def test_sizes(self) -> None:
        """The header has 548 bytes and a section header 12, as the format fixes."""
        self.assertEqual((HEADER_BYTES, SECTION_HEADER_BYTES), (548, 12))

    @given(
        st.sampled_from(Architecture),
        st.lists(st.tuples(_numbers, _numbers), min_size=1, max_size=MAX_SECTIONS),
        st.integers(2, 4),
        _numbers,
        _numbers,
        st.integers(0, 2**32 - 1),
    )
    def test_round_trip(
        self, arch: Architecture, table: list[tuple[int, int]], version: int, memory: int, cpus: int, crc: int
    ) -> None:
        """Every header that can be written is read as the same."""
        header = Header(arch, tuple(table), version, memory, cpus, crc)
        self.assertEqual(unpack_header(header.pack() + pack_crc(crc)), header)

    def _refused(self, offset: int, data: bytes, words: str) -> None:
        raw = Header(Architecture.X86_64, ((548, 1),)).pack() + pack_crc(0)
        error = self.assertRaises(ImageError, unpack_header, raw[:offset] + data + raw[offset + len(data) :])
        self.assertIn(words, str(error))

    def test_fields(self) -> None:
        """A magic, version, flag, reserved field or count that cannot be is named."""
        self._refused(0, b"\x7fELF", "not an enclave image")
        self._refused(4, b"\0\1", "version: expected 2 to 4, got 1")
        self._refused(4, b"\0\5", "version: expected 2 to 4, got 5")
        self._refused(6, b"\0\2", "flags")
        self._refused(24, b"\0\1", "reserved")
        self._refused(540, b"\0\0\0\1", "reserved")
        self._refused(26, b"\0\0", "number of sections")
        self._refused(26, b"\0\x21", "number of sections")
        self._refused(28 + 8, bytes(7) + b"\1", "zeros after the 1 sections")
        self._refused(28 + 256 + 8, bytes(7) + b"\1", "zeros after the 1 sections")

    def test_cut_off(self) -> None:
        """A file that ends within the header says so; an empty one is no image."""
        raw = Header(Architecture.X86_64, ((548, 1),)).pack()
        self.assertIn("cut off", str(self.assertRaises(ImageError, unpack_header, raw)))
        self.assertIn("not an enclave image", str(self.assertRaises(ImageError, unpack_header, b"")))


class SectionTests(SynchronousTestCase):
    """Section headers, and which sections make an image."""

    def test_round_trip(self) -> None:
        """A section header is read as it was written."""
        for kind in Kind:
            self.assertEqual(unpack_section(pack_section(kind, 7), 548, 7), Section(kind, 548, 7))

    def test_refused(self) -> None:
        """An unknown type, flags, a size that differs from the table and one above the kind's bound are refused."""
        for raw, size, words in (
            (b"\0\0\0\0" + bytes(8), 0, "type 0 is unknown"),
            (b"\0\6\0\0" + bytes(8), 0, "type 6 is unknown"),
            (b"\0\1\0\1" + bytes(8), 0, "flags"),
            (pack_section(Kind.KERNEL, 8), 7, "it says 8 bytes, the header's table says 7"),
        ):
            self.assertIn(words, str(self.assertRaises(ImageError, unpack_section, raw, 548, size)))
        for kind, most in MOST_BYTES.items():
            unpack_section(pack_section(kind, most), 548, most)
            error = self.assertRaises(ImageError, unpack_section, pack_section(kind, most + 1), 548, most + 1)
            self.assertIn(f"at most {most}", str(error))

    def _order(self, version: int, *kinds: Kind) -> None:
        check_order(version, [Section(kind, 0, 0) for kind in kinds])

    def test_order(self) -> None:
        """Kernel and command line once and before the ramdisks, metadata once since version 4, a signature at most."""
        k, c, r, s, m = Kind.KERNEL, Kind.CMDLINE, Kind.RAMDISK, Kind.SIGNATURE, Kind.METADATA
        self._order(4, k, c, m, r, r, s)
        self._order(4, c, k, r, m)
        self._order(3, k, c, r)
        for version, kinds in (
            (4, (k, c, r)),
            (4, (k, c, m)),
            (4, (c, m, r)),
            (4, (k, m, r)),
            (4, (k, k, c, m, r)),
            (4, (k, c, m, m, r)),
            (4, (k, c, m, r, s, s)),
            (4, (k, r, c, m)),
            (4, (r, k, c, m)),
        ):
            self.assertRaises(ImageError, self._order, version, *kinds)
