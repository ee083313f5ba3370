"""The registers of an image."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.layout import Kind
from nitroproxy.image.measurements import Measurements, Meter, extend


def _pcr(*data: bytes) -> str:
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(data)).digest()).hexdigest()


class MeterTests(SynchronousTestCase):
    """What each register covers."""

    @given(st.binary(), st.binary(), st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 9))
    def test_registers(self, kernel: bytes, cmdline: bytes, ramdisks: list[bytes], size: int) -> None:
        """Each register covers its sections, in whatever pieces they come."""
        meter = Meter()
        sections = [(Kind.KERNEL, kernel), (Kind.CMDLINE, cmdline), (Kind.METADATA, b"not measured")]
        for kind, data in [*sections, *((Kind.RAMDISK, one) for one in ramdisks), (Kind.SIGNATURE, b"neither")]:
            meter.begin(kind)
            for at in range(0, len(data), size):
                meter.update(kind, data[at : at + size])
        self.assertEqual(
            meter.finish(b"certificate"),
            Measurements(
                _pcr(kernel, cmdline, *ramdisks),
                _pcr(kernel, cmdline, *ramdisks[:1]),
                _pcr(*ramdisks[1:]),
                _pcr(b"certificate"),
            ),
        )

    def test_dictionary(self) -> None:
        """PCR8 is only there for a signed image."""
        found = Measurements("0", "1", "2").to_dict()
        self.assertEqual([name for name in found if name.startswith("PCR")], ["PCR0", "PCR1", "PCR2"])
        self.assertEqual(Measurements("0", "1", "2", "8").to_dict()["PCR8"], "8")

    def test_extend(self) -> None:
        """A register is extended from zeros."""
        self.assertEqual(extend(hashlib.sha384(b"x").digest()), _pcr(b"x"))
