"""Tests of `nitroproxy.attestation.verification`. The rules themselves: see `tests.test_attestation_rules`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import verification
from nitroproxy.attestation.refusal import Refused
from nitroproxy.attestation.verification import Attestation, check_time, verify
from tests.attestation import pki
from tests.attestation.field_rules import good_case
from tests.attestation.real import load

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class RealTests(SynchronousTestCase):
    """The stored documents, against AWS's root."""

    def test_verdicts(self) -> None:
        """Every document gets the verdict that its record asks for."""
        verdicts = []
        for real in load():
            # Of one that is not AWS's, the measurements may be impossible ones: any policy will do.
            policy = (real if real.genuine else load()[0]).policy()
            try:
                attestation = verify(real.data, policy, now=NOW)
            except Refused as refused:
                verdicts.append((real.name, f"refused: {refused.rule}"))
            else:
                verdicts.append((real.name, "verified"))
                self.assertEqual(attestation.debug, real.record["debug"])
                self.assertEqual(attestation.root.hex(), real.record["root_sha256"])
                self.assertEqual(attestation.not_after, datetime.fromisoformat(real.record["leaf_not_after"]))
        self.assertEqual(verdicts, [(real.name, real.record["expect"]) for real in load()])
        self.assertGreaterEqual(len(verdicts), 23)


class VerifyTests(SynchronousTestCase):
    """A document of our own PKI."""

    def setUp(self) -> None:
        self.chain = pki.pki()
        self.good = good_case(self.chain)

    def verify(self, data: bytes | None = None, nonce: bytes | None = None, now: datetime | None = None) -> Attestation:
        """Verify *data*, or else the good document, as it should be."""
        data = self.good.data if data is None else data
        return verify(data, self.good.policy, now=now or self.good.now, nonce=nonce, roots=self.chain.roots)

    def test_attestation(self) -> None:
        """It gives what the document says, and which entry it matches."""
        fields = pki.fields(self.chain)
        attestation = self.verify()
        self.assertEqual(attestation.entry, "ours")
        self.assertEqual(attestation.module_id, fields["module_id"])
        self.assertEqual(attestation.timestamp, pki.T0 + timedelta(minutes=1))
        self.assertEqual(attestation.pcrs, fields["pcrs"])
        self.assertEqual((attestation.public_key, attestation.user_data, attestation.nonce), (None, b"u", b"n" * 20))
        self.assertEqual(attestation.not_after, pki.T0 + timedelta(hours=3))
        self.assertEqual({attestation.root}, set(self.chain.roots))
        self.assertFalse(attestation.debug)

    def test_aws_by_default(self) -> None:
        """Without roots only AWS's is trusted."""
        refused = self.assertRaises(Refused, verify, self.good.data, self.good.policy, now=self.good.now)
        self.assertEqual(refused.rule, "root")

    def test_nonce(self) -> None:
        """A nonce that is asked for must be there; an empty one is never asked for."""
        self.verify(nonce=b"n" * 20)
        for nonce in (b"n" * 19, b"n" * 21, b"m" * 20, b""):
            self.assertEqual(self.assertRaises(Refused, self.verify, nonce=nonce).rule, "nonce")
        for value in (None, b""):
            data = pki.document(self.chain, {**pki.fields(self.chain), "nonce": value})
            self.assertEqual(self.assertRaises(Refused, self.verify, data, nonce=b"").rule, "nonce")
            self.assertEqual(self.assertRaises(Refused, self.verify, data, nonce=b"n" * 20).rule, "nonce")

    def test_time_zones(self) -> None:
        """The time may be in any zone; without one it cannot be compared, which refuses."""
        self.verify(now=self.good.now.astimezone(timezone(timedelta(hours=8))))
        self.assertEqual(
            self.assertRaises(Refused, self.verify, now=self.good.now.replace(tzinfo=None)).rule, "internal"
        )

    def test_nothing_but_refused(self) -> None:
        """Whatever is raised within, a panic of a library written in Rust too, is a refusal that names it."""

        class PanicException(BaseException):
            pass

        for error in (ValueError("x\n"), RecursionError(), MemoryError(), PanicException("x\n")):
            self.patch(verification, "read_document", _raising(error))
            refused = self.assertRaises(Refused, self.verify)
            self.assertEqual(refused.rule, "internal")
            self.assertTrue(refused.detail.startswith(f"{type(error).__name__}: "))
            self.assertIs(refused.__cause__, error)

    def test_interrupts(self) -> None:
        """What ends the program ends it here, too."""
        for error in (KeyboardInterrupt(), SystemExit(), GeneratorExit()):
            self.patch(verification, "read_document", _raising(error))
            self.assertRaises(type(error), self.verify)

    def test_order(self) -> None:
        """Nothing of a document is looked at for age, nonce or policy before its signature is verified."""
        payload = pki.encode({**pki.fields(self.chain), "timestamp": pki.milliseconds(pki.T0) + 1})
        data = pki.cose(payload, bytes(96))
        long_ago = self.good.now - timedelta(days=1)
        refused = self.assertRaises(Refused, self.verify, data, nonce=b"x", now=long_ago)
        self.assertEqual(refused.rule, "signature")


class TimeTests(SynchronousTestCase):
    """Judging the times of an attestation once more."""

    def setUp(self) -> None:
        self.policy = replace(good_case(pki.pki()).policy, max_age=timedelta(minutes=5))
        self.signed = datetime(2026, 11, 28, tzinfo=UTC)

    def check(self, seconds: float, *, lives: float = 3600.0, archived: bool = False) -> str:
        """The refusal *seconds* after a document was signed whose chain lives that many; empty if there is none."""
        policy = replace(self.policy, max_age=None) if archived else self.policy
        now, not_after = self.signed + timedelta(seconds=seconds), self.signed + timedelta(seconds=lives)
        try:
            check_time(policy, now, timestamp=self.signed, not_after=not_after)
        except Refused as refused:
            return str(refused)
        return ""

    def test_age(self) -> None:
        """The greatest age is allowed, and a clock that is a minute slow."""
        self.assertEqual([self.check(seconds) for seconds in (-60, 0, 300)], ["", "", ""])
        signed = "it was signed at 2026-11-28 00:00:00 UTC"
        self.assertEqual(self.check(301), f"age: {signed}, 301 s ago; the policy allows 300 s")
        future = f"age: {signed}, in the future by this machine's clock (2026-11-27 23:58:59 UTC)"
        self.assertEqual(self.check(-61), future)

    def test_chain(self) -> None:
        """A chain that has ended by now, a minute aside, is refused however young the document is."""
        self.assertEqual(self.check(100, lives=40), "")
        self.assertTrue(self.check(101, lives=40).startswith("validity: "))

    def test_archived(self) -> None:
        """An archived document may be of any age, but not from the future."""
        self.assertEqual(self.check(10**9, archived=True), "")
        self.assertTrue(self.check(-61, archived=True).startswith("age: "))

    def test_ends_of_time(self) -> None:
        """Times at either end of the calendar are judged like others."""
        last = datetime.max.replace(tzinfo=UTC)
        check_time(self.policy, self.signed, timestamp=self.signed, not_after=last)
        self.assertRaises(Refused, check_time, self.policy, self.signed, timestamp=last, not_after=last)


def _raising(error: BaseException) -> Callable[[bytes], object]:
    def read_document(data: bytes) -> object:
        raise error

    return read_document
