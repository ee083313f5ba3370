"""What is played beside an emulated enclave: the module's documents, hostile ones, and derived images; without QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.measurements import Measurements
from nitroproxy.image.reader import read_image
from tests.images import image
from tests.nitro.derive import derive
from tests.nitro.nsm import VARIANTS, Module, initial_registers
from tests.nitro.verify import Unverified, verify_document

MEASURED = Measurements("00" * 48, "11" * 48, "22" * 48)


class ModuleTests(SynchronousTestCase):
    """`Module`, by the requests that the driver passes on."""

    def setUp(self) -> None:
        self.module = Module(initial_registers(MEASURED, "role", "i-1"), "i-1")

    def _ask(self, request: object) -> Any:
        return cbor2.loads(self.module.answer(cbor2.dumps(request)))

    def _document(self, **given: bytes) -> Mapping[str, Any]:
        document = self._ask({"Attestation": given})["Attestation"]["document"]
        return verify_document(document, self.module.authority.root_pem)

    def test_document(self) -> None:
        """A document is verified, with the registers and what was given; another root is refused."""
        found = self._document(nonce=b"n", user_data=b"u", public_key=b"k")
        self.assertEqual((found["nonce"], found["user_data"], found["public_key"]), (b"n", b"u", b"k"))
        self.assertEqual([found["pcrs"][n].hex()[:2] for n in range(3)], ["00", "11", "22"])
        self.assertNotIn(16, found["pcrs"])
        other = Module({}, "i-1").authority.root_pem
        document = self._ask({"Attestation": {}})["Attestation"]["document"]
        self.assertRaises(Unverified, verify_document, document, other)

    def test_hostile(self) -> None:
        """Each variant differs from a good module in what it says it does."""
        good = self._document()
        for variant in VARIANTS:
            self.module.variant = variant
            if variant == "signature":
                self.assertRaises(Unverified, self._document)
            elif variant == "invalid":
                self.assertEqual(self._ask({"Attestation": {}}), {"Error": "InvalidOperation"})
            elif variant == "pcr":
                self.assertNotEqual(self._document()["pcrs"][0], good["pcrs"][0])
            elif variant == "debug":
                self.assertEqual(self._document()["pcrs"][1], bytes(48))
            elif variant in ("stale", "future"):
                days = (self._document()["timestamp"] - good["timestamp"]) / 86_400_000
                self.assertEqual(round(days), 1 if variant == "future" else -1)

    def test_registers(self) -> None:
        """Locked registers stay, others are extended; requests that are none are refused."""
        self.assertEqual(self._ask({"ExtendPCR": {"index": 0, "data": b"x"}}), {"Error": "ReadOnlyIndex"})
        extended = self._ask({"ExtendPCR": {"index": 16, "data": b"x"}})["ExtendPCR"]["data"]
        self.assertEqual(self._ask({"DescribePCR": {"index": 16}})["DescribePCR"]["data"], extended)
        self.assertEqual(self._ask({"LockPCRs": {"range": 17}}), "LockPCRs")
        self.assertEqual(self._ask({"ExtendPCR": {"index": 16, "data": b"x"}}), {"Error": "ReadOnlyIndex"})
        self.assertEqual(self._ask({"ExtendPCR": {"index": 99, "data": b"x"}}), {"Error": "InvalidIndex"})
        self.assertEqual(self._ask({"Attestation": {"nonce": bytes(513)}}), {"Error": "InputTooLarge"})
        self.assertEqual(self._ask("Nothing"), {"Error": "InvalidOperation"})
        self.assertEqual(self._ask({"DescribePCR": {}}), {"Error": "InvalidArgument"})
        self.assertEqual(len(self._ask("GetRandom")["GetRandom"]["random"]), 256)


class DeriveTests(SynchronousTestCase):
    """`derive`."""

    def test_added(self) -> None:
        """What is added changes PCR0 and PCR2, and neither what boots nor what was there."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "base.eif").write_bytes(image())
        measured = derive(directory / "base.eif", directory / "new.eif", {"app/x": b"1"}, ["/app/x"])
        base, new = (read_image(directory / name) for name in ("base.eif", "new.eif"))
        self.assertEqual(new.measurements, measured)
        self.assertEqual(measured.pcr1, base.measurements.pcr1)
        self.assertNotEqual(measured.pcr2, base.measurements.pcr2)
        self.assertEqual(len(new.sections), len(base.sections) + 1)
