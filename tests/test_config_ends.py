"""Tests of `nitroproxy.config.ends`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import EnclaveForward
from nitroproxy.config.values import violations
from tests.configs import wanted


class EnclaveForwardTests(SynchronousTestCase):
    """A list of objects: enclave.forwards."""

    def test_rules(self) -> None:
        """Those of the enclave listen on loopback, and lead to a host and a port."""
        listen, to = wanted(EnclaveForward, "listen"), wanted(EnclaveForward, "to")
        for text in ("127.0.0.1:5432", "127.9.9.9:1", "[::1]:5432"):
            self.assertEqual(list(violations(text, listen)), [], text)
        expected = "expected a loopback address and a port such as 127.0.0.1:5432 or [::1]:5432, got"
        reason = "whoever reaches it uses the forward as the application does"
        self.assertEqual(list(violations("0.0.0.0:1", listen)), [f"{expected} '0.0.0.0:1': {reason}"])
        self.assertEqual(list(violations("localhost:1", listen)), [f"{expected} 'localhost:1'"])
        for text in ("db.example:5432", "192.0.2.1:1", "[2001:db8::1]:65535", "b\u00fccher.example:1"):
            self.assertEqual(list(violations(text, to)), [], text)
        for text in (
            "db.example",
            ":1",
            "db.example:0",
            "db.example:65536",
            "127.1:1",
            "*.example:1",
            "a b:1",
            "::1:1",
        ):
            self.assertEqual(len(list(violations(text, to))), 1, text)
