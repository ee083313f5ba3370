"""What is played beside an emulated enclave: the module's documents, hostile ones, and derived images; without QEMU."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import Attestation, Refused, load_policy, verify
from nitroproxy.image.documents import policy_document, write_document
from nitroproxy.image.measurements import Measurements
from nitroproxy.image.reader import read_image
from tests.images import image
from tests.nitro.derive import derive
from tests.nitro.loop import READ, Loop
from tests.nitro.nsm import ROLE, VARIANTS, Module, initial_registers

MEASURED = Measurements("aa" * 48, "11" * 48, "22" * 48)
#: The rule by which a client refuses the documents of a variant.
RULES = {"signature": "signature", "pcr": "policy", "debug": "debug", "stale": "age", "future": "age"}


class ModuleTests(SynchronousTestCase):
    """`Module`, by the requests that the driver passes on."""

    def setUp(self) -> None:
        self.module = Module(initial_registers(MEASURED, ROLE, "i-0123456789abcdef0"), "i-0123456789abcdef0")
        path = Path(self.mktemp())
        write_document(path, policy_document("test", MEASURED, {"role": ROLE}))
        self.policy = load_policy(str(path))

    def _ask(self, request: object) -> Any:
        return cbor2.loads(self.module.answer(cbor2.dumps(request)))

    def _verify(self, root: bytes | None = None, **given: bytes) -> Attestation:
        document = self._ask({"Attestation": given})["Attestation"]["document"]
        roots = [root or self.module.authority.root_digest]
        return verify(document, self.policy, now=datetime.now(UTC), nonce=given.get("nonce"), roots=roots)

    def test_document(self) -> None:
        """A document passes for the policy that is written for the image, with what was given; not for another root."""
        found = self._verify(nonce=b"n", user_data=b"u", public_key=b"k")
        self.assertEqual((found.nonce, found.user_data, found.public_key), (b"n", b"u", b"k"))
        self.assertEqual([found.pcrs[n].hex()[:2] for n in range(3)], ["aa", "11", "22"])
        other = Module({}, "i-1").authority.root_digest
        self.assertEqual(self.assertRaises(Refused, self._verify, other).rule, "root")

    def test_hostile(self) -> None:
        """Each variant is refused by the rule that it breaks, or does what it says it does."""
        for variant in VARIANTS:
            self.module.variant = variant
            if variant == "invalid":
                self.assertEqual(self._ask({"Attestation": {}}), {"Error": "InvalidOperation"})
            elif variant in RULES:
                self.assertEqual(self.assertRaises(Refused, self._verify).rule, RULES[variant])
        self.assertEqual(set(VARIANTS) - set(RULES), {"good", "slow", "invalid"})

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


class LoopTests(SynchronousTestCase):
    """`Loop`."""

    def test_closed_in_the_same_turn(self) -> None:
        """A file that one callback closes is not handed to its own callback, though its event has happened."""
        loop, called = Loop(), list[int]()
        pairs = [socket.socketpair() for _ in range(2)]

        def close_both(number: int, events: int) -> None:
            called.append(number)
            for mine, _ in pairs:
                loop.forget(mine)
                mine.close()

        for number, (mine, other) in enumerate(pairs):
            self.addCleanup(other.close)
            loop.watch(mine, READ, partial(close_both, number))
            other.sendall(b"x")
        loop.turn(10)
        loop.turn(0)
        self.assertEqual(len(called), 1)


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
