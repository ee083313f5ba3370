"""The verifier against every rule broken at a time, and against a part of the mutations of real documents.

``python -m tests.attestation`` runs all of the mutations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import verification
from nitroproxy.attestation.refusal import Refused, Rule
from tests.attestation.__main__ import rules
from tests.attestation.cases import BEYOND_THE_SIGNATURE, Case, Tally
from tests.attestation.field_rules import good_case
from tests.attestation.mutations import Mutator
from tests.attestation.pki import pki
from tests.attestation.real import load
from tests.attestation.verdict_rules import verdicts

NOW = datetime(2026, 11, 28, tzinfo=UTC)
ROOT: tuple[Rule, ...] = ("root",)
NONCE: tuple[Rule, ...] = ("nonce",)
#: Of so many documents, and of so many of their mutations, one is tried here: always the same, never by chance.
ONE_DOCUMENT_OF = 3
ONE_OF = 97


class RuleTests(SynchronousTestCase):
    """All of the rules, and some of the mutations."""

    def judge(self, cases: Iterator[Case]) -> Tally:
        """Judge the cases; none may go wrong."""
        tally = Tally()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography warns of serial numbers that are not positive.
            tally.judge(cases)
        self.assertEqual(tally.wrong, [])
        return tally

    def test_rules(self) -> None:
        """One rule broken at a time refuses for that rule; what is in order is accepted; every rule of a document is
        broken. Those of a certificate with one are in test_attestation_evidence."""
        tally = self.judge(rules())
        self.assertGreaterEqual(tally.refused, 400)
        self.assertGreaterEqual(tally.outcomes["accepted"], 20)
        self.assertEqual(set(get_args(Rule)) - set(tally.outcomes), {"age", "internal", "extension", "binding"})

    def test_verdicts(self) -> None:
        """Real documents are judged by what is asked for: nonce, age, root, debug, each measurement."""
        for real in load():
            if real.genuine:
                tally = self.judge(verdicts(real, NOW))
                self.assertLessEqual({"nonce", "age", "root", "policy", "accepted"}, tally.outcomes.keys())

    def test_structure(self) -> None:
        """Real documents that are written in any other way are refused, but for tag 18 and the twin of a signature."""
        documents = [real for real in load() if real.genuine][::ONE_DOCUMENT_OF]
        for place, real in enumerate(documents):
            tally = self.judge(Mutator(real, documents[place - 1], NOW).structure())
            self.assertEqual(tally.outcomes["accepted"], 3, real.name)
            self.assertGreater(tally.refused, 100)

    def test_mutations(self) -> None:
        """A part of the bit flips, cuts and random changes of some real documents: all are refused."""
        documents = [real for real in load() if real.genuine][::ONE_DOCUMENT_OF]
        for place, real in enumerate(documents):
            mutator = Mutator(real, documents[place - 1], NOW)
            self.judge(islice(mutator.bits(every=False), place, None, ONE_OF))
            self.judge(mutator.payloads(ONE_OF))
            self.judge(mutator.edits(Random(real.name), 50))
            self.assertEqual(self.judge(mutator.cuts()).outcomes["accepted"], 0)


class CaseTests(SynchronousTestCase):
    """The harness itself sees what it is for."""

    def outcome(self, case: Case) -> str:
        """What the harness finds wrong."""
        tally = Tally()
        tally.judge([case])
        return " ".join(tally.wrong)

    def test_accepted(self) -> None:
        """A document that is accepted though it must not be is a finding."""
        good = good_case(pki())
        for expected in (ROOT, None):
            case = Case("x", good.data, expected, good.policy, good.now, roots=good.roots)
            self.assertEqual(self.outcome(case), "x: ACCEPTED")

    def test_refused(self) -> None:
        """So is one that is refused though it must not be, or for another rule."""
        good = good_case(pki())
        for expected in ((), NONCE):
            found = self.outcome(Case("x", good.data, expected, good.policy, good.now))
            self.assertTrue(found.startswith("x: root: "), found)

    def test_beyond_the_signature(self) -> None:
        """So is a changed document that is refused for what is only looked at once its signature is verified."""
        good = good_case(pki())
        for rule in BEYOND_THE_SIGNATURE:
            self.patch(verification, "read_document", _raising(Refused(rule, "")))
            self.assertIn(f"x: {rule}", self.outcome(Case("x", good.data, None, good.policy, good.now)))

    def test_stray(self) -> None:
        """So is any other exception."""
        good = good_case(pki())
        self.patch(verification, "read_document", _raising(KeyboardInterrupt("now")))
        case = Case("x", good.data, ROOT, good.policy, good.now)
        self.assertEqual(self.outcome(case), "x: KeyboardInterrupt: now")


def _raising(error: BaseException) -> object:
    def read_document(data: bytes) -> None:
        raise error

    return read_document
