"""Tests of `nitroproxy.attestation.chain`. The rules themselves: see `tests.attestation.certificate_rules`."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.chain import verify_chain
from nitroproxy.attestation.refusal import Refused
from tests.attestation.pki import T0, pki


class ChainTests(SynchronousTestCase):
    """The result for a good chain, and the message for a bad one."""

    def setUp(self) -> None:
        self.chain = pki()

    def test_result(self) -> None:
        """It gives the leaf's key, the earliest end, and which root it was."""
        chain = verify_chain(self.chain.cabundle, self.chain.leaf, T0, self.chain.roots)
        self.assertEqual(chain.key.public_numbers(), self.chain.leaf_key.public_key().public_numbers())
        self.assertEqual(chain.not_after, T0 + timedelta(hours=3))
        self.assertEqual(chain.root, hashlib.sha256(self.chain.cabundle[0]).digest())

    def test_earliest_end(self) -> None:
        """A CA that ends before the leaf bounds the chain."""
        short = pki(zone={"days": (-1, 0.05)})
        chain = verify_chain(short.cabundle, short.leaf, T0, short.roots)
        self.assertEqual(chain.not_after, T0 + timedelta(days=0.05))

    def test_root_is_named(self) -> None:
        """A root that is not trusted is named by its fingerprint, so that a person can look for it."""
        refused = self.assertRaises(Refused, verify_chain, self.chain.cabundle, self.chain.leaf, T0, frozenset())
        self.assertIn(next(iter(self.chain.roots)).hex(), refused.detail)

    def test_link_is_named(self) -> None:
        """The certificate that is not issued by the one before it is named with it."""
        broken = (*self.chain.cabundle[:2], *self.chain.cabundle[3:])
        refused = self.assertRaises(Refused, verify_chain, broken, self.chain.leaf, T0, self.chain.roots)
        self.assertEqual(str(refused), "chain: cabundle[2] is not issued by cabundle[1]")
