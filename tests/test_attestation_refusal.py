"""Tests of `nitroproxy.attestation.refusal`."""

from __future__ import annotations

import pickle

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.refusal import Refused, printable


class RefusedTests(SynchronousTestCase):
    """The text of a refusal, with hostile content too."""

    def test_text(self) -> None:
        """It names the rule first."""
        self.assertEqual(str(Refused("age", "too old")), "age: too old")

    def test_hostile_detail(self) -> None:
        """A detail cannot move a terminal's cursor, begin a new line of a log, or break an encoder."""
        refused = Refused("fields", "\x1b[2J\n\u202eé\ud800\x00\\")
        self.assertEqual(refused.detail, "\\x1b[2J\\n\\u202e\\xe9\\ud800\\x00\\")
        self.assertTrue(refused.detail.isascii())

    def test_long_detail(self) -> None:
        """A detail is cut at 512 characters, counted after escaping."""
        self.assertEqual(Refused("fields", "\n" * 300).detail, "\\n" * 254 + "\\...")
        self.assertEqual(len(Refused("fields", "x" * 512).detail), 512)
        self.assertTrue(Refused("fields", "x" * 512).detail.endswith("x"))

    def test_pickle(self) -> None:
        """It survives the way to another process whole."""
        copy = pickle.loads(pickle.dumps(Refused("nonce", "detail")))
        self.assertEqual((copy.rule, copy.detail), ("nonce", "detail"))


class PrintableTests(SynchronousTestCase):
    """Escaping."""

    def test_ascii_is_kept(self) -> None:
        """What is printable in ASCII is left as it is."""
        text = "".join(map(chr, range(32, 127)))
        self.assertEqual(printable(text), text)
