"""Images are read whole and checked: AWS's vectors, and what was damaged in every way."""

from __future__ import annotations

import io
import json
import os
import random
import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import HEADER_BYTES, MOST_BYTES, Architecture, Kind, Section
from nitroproxy.image.reader import PIECE_BYTES, pieces, read, read_image
from tests.images import METADATA, PARTS, VECTORS, image, patched, with_crc


def _read(raw: bytes) -> object:
    return read(io.BytesIO(raw))


class VectorTests(SynchronousTestCase):
    """Images that AWS's tools made."""

    def test_measurements(self) -> None:
        """Every vector is accepted, and its registers are those that the tool that made it printed."""
        names = [path.stem for path in VECTORS.glob("*.eif")]
        self.assertEqual(len(names), 5)
        for name in names:
            wanted = json.loads((VECTORS / f"{name}.json").read_text())["Measurements"]
            found = read_image(VECTORS / f"{name}.eif").measurements.to_dict()
            del wanted["HashAlgorithm"], found["HashAlgorithm"]
            self.assertEqual(found, wanted, name)

    def test_facts(self) -> None:
        """Architecture, command line, metadata and signature of the vectors are read."""
        arm = read_image(VECTORS / "aarch64-one-ramdisk.eif")
        self.assertEqual((arm.header.architecture, arm.cmdline), (Architecture.AARCH64, "console=ttyAMA0"))
        self.assertEqual(arm.metadata["BuildMetadata"]["BuildTool"], "eif_build")
        self.assertIsNone(arm.signature)
        self.assertIsNotNone(read_image(VECTORS / "signed-p384.eif").signature)

    def test_flipped_bits(self) -> None:
        """A byte that was changed anywhere in a signed image is found."""
        raw = (VECTORS / "signed-p256.eif").read_bytes()
        generator = random.Random(1)
        for offset in range(len(raw)):
            damaged = bytearray(raw)
            damaged[offset] ^= generator.randrange(1, 256)
            self.assertRaises(ImageError, _read, bytes(damaged))

    def test_cut_off(self) -> None:
        """An image that was cut off anywhere, or has bytes after its end, is refused."""
        raw = (VECTORS / "three-ramdisks.eif").read_bytes()
        for size in range(0, len(raw), 7):
            self.assertRaises(ImageError, _read, raw[:size])
            self.assertRaises(ImageError, _read, with_crc(raw[:size].ljust(HEADER_BYTES, b"\0")))
        self.assertIn("1 bytes follow", str(self.assertRaises(ImageError, _read, with_crc(raw + b"\0"))))


class HostileTests(SynchronousTestCase):
    """Files whose checksum is right and whose content is not."""

    def _refused(self, raw: bytes, words: str) -> None:
        self.assertIn(words, str(self.assertRaises(ImageError, _read, raw)))

    def test_whole(self) -> None:
        """An image in memory is read with its sections, in order."""
        found = read(io.BytesIO(image()))
        self.assertEqual([section.kind for section in found.sections], [kind for kind, _ in PARTS])
        self.assertEqual(found.metadata, json.loads(METADATA))

    def test_sizes_that_lie(self) -> None:
        """An offset or size in the table that does not fit the file is refused before data is read."""
        raw = image()
        sizes = 28 + 256
        self._refused(patched(raw, 28, (549).to_bytes(8)), "must be at 548")
        self._refused(patched(raw, 28 + 8, (548).to_bytes(8)), "the next section must be at")
        self._refused(patched(raw, sizes, (2**64 - 1).to_bytes(8)), "cut off")
        self._refused(patched(raw, sizes, (9).to_bytes(8)), "it says 10 bytes")
        self._refused(patched(raw, HEADER_BYTES + 4, (2**63).to_bytes(8)), "it says 9223372036854775808 bytes")

    def test_texts(self) -> None:
        """A command line that is not UTF-8, and metadata that is no JSON object, are refused."""
        parts = dict(PARTS[:3])
        for kind, data, words in (
            (Kind.CMDLINE, b"\xff", "command line: not UTF-8"),
            (Kind.METADATA, b"{", "metadata: not JSON"),
            (Kind.METADATA, b"[" * 100_000, "metadata: not JSON"),
            (Kind.METADATA, b"[]", "metadata: expected a JSON object"),
        ):
            changed = {**parts, kind: data}
            self._refused(image([*changed.items(), *PARTS[3:]]), words)

    @given(st.binary(max_size=2000))
    def test_noise(self, data: bytes) -> None:
        """Whatever follows a header, only ImageError comes out."""
        for raw in (data, b".eif" + data, with_crc(image()[:HEADER_BYTES] + data)):
            with self.assertRaises(ImageError):
                _read(raw)

    @given(st.lists(st.tuples(st.sampled_from([k for k in Kind if k is not Kind.SIGNATURE]), st.binary(max_size=40))))
    def test_any_sections(self, parts: list[tuple[Kind, bytes]]) -> None:
        """Any sequence of sections is read as it is or refused with ImageError."""
        try:
            raw = image(parts)
            found = read(io.BytesIO(raw))
        except ImageError:
            return
        self.assertEqual([(one.kind, one.size) for one in found.sections], [(k, len(d)) for k, d in parts])

    def test_memory(self) -> None:
        """A large ramdisk is read in pieces: memory stays far below its size."""
        raw = Path(self.mktemp())
        size = 24 << 20
        raw.write_bytes(image([*PARTS, (Kind.RAMDISK, bytes(size))]))
        tracemalloc.start()
        try:
            read_image(raw)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 4 * PIECE_BYTES)


class FileTests(SynchronousTestCase):
    """Files as they are found."""

    def test_named(self) -> None:
        """An error names the file."""
        path = Path(self.mktemp())
        path.write_bytes(b"#!/bin/sh\n")
        self.assertIn(f"{path}: not an enclave image", str(self.assertRaises(ImageError, read_image, path)))
        missing = self.assertRaises(ImageError, read_image, path.with_name("missing"))
        self.assertIn("missing: No such file", str(missing))

    def test_no_regular_file(self) -> None:
        """A pipe, a device and a directory are refused at once, not waited for."""
        pipe = Path(self.mktemp())
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero"), pipe.parent):
            self.assertRaises(ImageError, read_image, path)

    def test_pieces(self) -> None:
        """Each section's data is handed out once, in pieces of a bounded size."""
        seen: dict[Section, bytes] = {}
        path = Path(self.mktemp())
        path.write_bytes(image([*PARTS, (Kind.RAMDISK, bytes(PIECE_BYTES + 1))]))

        def take(section: Section, piece: bytes) -> None:
            self.assertLessEqual(len(piece), PIECE_BYTES)
            seen[section] = seen.get(section, b"") + piece

        read_image(path, take)
        self.assertEqual(list(seen.values()), [*(data for _, data in PARTS), bytes(PIECE_BYTES + 1)])

    def test_shrinking_file(self) -> None:
        """A file that becomes shorter while it is read is an error."""
        self.assertRaises(ImageError, list, pieces(io.BytesIO(b"12"), 3))

    def test_bounds_of_kept_sections(self) -> None:
        """What is kept in memory is bounded by its kind: a larger command line is refused by its header alone."""
        raw = bytearray(image([PARTS[0], (Kind.CMDLINE, b"a" * MOST_BYTES[Kind.CMDLINE]), *PARTS[2:]]))
        self.assertEqual(len(read(io.BytesIO(raw)).cmdline), MOST_BYTES[Kind.CMDLINE])
