"""Tests of `nitroproxy.attestation.roots`: what is trusted. See also test_trust_roots."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import AWS_ROOTS
from nitroproxy.attestation.document import read_document
from tests.attestation.real import load


class RootTests(SynchronousTestCase):
    """The root itself."""

    def test_fingerprint(self) -> None:
        """It is the certificate that begins the chain of every stored document of AWS's NSMs."""
        begins = {hashlib.sha256(read_document(real.data).cabundle[0]).digest() for real in load() if real.genuine}
        self.assertEqual(begins, AWS_ROOTS)

    def test_constant(self) -> None:
        """The set cannot be added to."""
        self.assertIsInstance(AWS_ROOTS, frozenset)
