"""`nitroproxy.tls.anchors`: which certificates are trusted, and what is said of files that cannot be used."""

from __future__ import annotations

import warnings
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.anchors import load_anchors, read_certificates
from nitroproxy.tls.settings import TLSFileError, TLSSettings
from tests.tlsmemory import Authority


class AnchorTests(SynchronousTestCase):
    """Files of anchors."""

    def write(self, content: bytes) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(content)
        return str(path)

    def test_built_in(self) -> None:
        """Without files the anchors are the built-in roots, and loading them warns of nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            anchors = load_anchors(TLSSettings())
        self.assertGreater(len(anchors), 80)
        self.assertEqual({anchor.built_in for anchor in anchors}, {True})

    def test_replace(self) -> None:
        """ca_file replaces the built-in roots."""
        root = Authority()
        [anchor] = load_anchors(TLSSettings(ca_file=self.write(root.pem)))
        self.assertEqual((anchor.certificate, anchor.built_in), (root.certificate, False))

    def test_add(self) -> None:
        """extra_ca_file adds to the built-in roots, and to ca_file; a certificate that is in both is there once."""
        one, other = Authority("one"), Authority("other")
        extra = self.write(one.pem + other.pem)
        both = load_anchors(TLSSettings(ca_file=self.write(one.pem), extra_ca_file=extra))
        self.assertEqual([anchor.certificate for anchor in both], [one.certificate, other.certificate])
        added = load_anchors(TLSSettings(extra_ca_file=extra))
        self.assertEqual(len(added), len(load_anchors(TLSSettings())) + 2)
        self.assertEqual([anchor.built_in for anchor in added[-2:]], [False, False])

    def test_repeated_built_in(self) -> None:
        """A built-in root that extra_ca_file repeats stays built in, so that its profile does not change by that."""
        first = load_anchors(TLSSettings())[0]
        extra = self.write(first.certificate.public_bytes(Encoding.PEM))
        again = load_anchors(TLSSettings(extra_ca_file=extra))
        self.assertEqual(again[0], first)
        self.assertEqual({anchor.built_in for anchor in again}, {True})

    def test_not_verifying(self) -> None:
        """Without verification no file is read."""
        self.assertEqual(load_anchors(TLSSettings(verify=False, ca_file="/no/such/file")), [])

    def test_problems(self) -> None:
        """Every file that cannot be used is named, each with the reason."""
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        good = Authority().pem
        for content, reason in (
            (b"", "holds no certificate in PEM"),
            (b"nonsense", "holds no certificate in PEM"),
            (good + broken, "certificate 2 of 2 cannot be read: "),
            (good + good[:200], "a certificate in it is cut off"),
        ):
            path = self.write(content)
            settings = TLSSettings(ca_file=path, extra_ca_file="/no/such/file")
            error = self.assertRaises(TLSFileError, load_anchors, settings)
            (key, text), other = error.problems
            self.assertEqual(key, "ca_file")
            self.assertTrue(text.startswith(f"{path}: {reason}"), text)
            self.assertEqual(other, ("extra_ca_file", "/no/such/file: No such file or directory"))

    def test_directory(self) -> None:
        """A directory is named as what it is."""
        directory = Path(self.mktemp())
        directory.mkdir()
        error = self.assertRaises(ValueError, read_certificates, str(directory))
        self.assertEqual(str(error), f"{directory}: Is a directory")

    def test_text_around(self) -> None:
        """Text before, between and after certificates is skipped, as bundles have it."""
        one, other = Authority("one"), Authority("other")
        path = self.write(b"# one\n" + one.pem + b"\n# other\n" + other.pem + b"end\n")
        self.assertEqual(read_certificates(path), [one.certificate, other.certificate])
