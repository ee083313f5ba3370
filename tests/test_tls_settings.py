"""`nitroproxy.tls.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.settings import TLSFileError, TLSSettings


class SettingsTests(SynchronousTestCase):
    """Values and the error."""

    def test_defaults(self) -> None:
        """Nothing given is the strictest: TLS 1.3, verified, the built-in anchors alone, no client certificate."""
        settings = TLSSettings()
        self.assertEqual((settings.min_version, settings.verify, settings.profile), ("TLSv1.3", True, None))
        self.assertEqual((settings.ca_file, settings.extra_ca_file, settings.client_certificates), (None, None, {}))

    def test_error(self) -> None:
        """The error's text names every key with its problem."""
        error = TLSFileError([("ca_file", "/a: no"), ("extra_ca_file", "/b: no")])
        self.assertEqual(str(error), "tls.ca_file: /a: no; tls.extra_ca_file: /b: no")
        self.assertEqual(error.problems, (("ca_file", "/a: no"), ("extra_ca_file", "/b: no")))
