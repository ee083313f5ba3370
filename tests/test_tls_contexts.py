"""`nitroproxy.tls.contexts`: the context, and with it the client certificate, for each destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.contexts import Contexts
from nitroproxy.tls.settings import ClientCertificateFiles, TLSFileError, TLSSettings
from tests.tlsmemory import Authority


class ContextTests(SynchronousTestCase):
    """Patterns and destinations."""

    def files(self) -> ClientCertificateFiles:
        identity = Authority().issue()
        certificate, key = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        certificate.write_bytes(identity.pem)
        key.write_bytes(identity.key_pem)
        key.chmod(0o600)
        return ClientCertificateFiles(str(certificate), str(key))

    def contexts(self, *patterns: str, **settings: Any) -> Contexts:
        certificates = {pattern: self.files() for pattern in patterns}
        return Contexts(TLSSettings(client_certificates=certificates, **settings), [], lambda *arguments: False, ())

    def test_most_specific(self) -> None:
        """Of the patterns that match a destination the most specific one gives the certificate; none gives none."""
        contexts = self.contexts("*:8443", "**.example:443", "*.b.example:443", "a.b.example:443", "10.0.0.0/8:443")
        for host, port, pattern in (
            ("a.b.example", 443, "a.b.example:443"),
            ("c.b.example", 443, "*.b.example:443"),
            ("d.c.example", 443, "**.example:443"),
            ("a.b.example", 8443, "*:8443"),
            ("10.1.2.3", 443, "10.0.0.0/8:443"),
            ("other.test", 443, None),
            ("192.0.2.1", 443, None),
        ):
            _, identity = contexts.find(host, port)
            self.assertEqual(identity.pattern if identity is not None else None, pattern, host)

    def test_apart(self) -> None:
        """Each certificate has a context of its own: no destination gets another's."""
        contexts = self.contexts("a.example:443", "b.example:443")
        found = {id(contexts.find(host, 443)[0]) for host in ("a.example", "b.example", "c.example")}
        self.assertEqual(len(found), 3)

    def test_problems(self) -> None:
        """Every certificate that cannot be used is named by its pattern."""
        files = ClientCertificateFiles("/no/such/file", "/no/such/key")
        settings = TLSSettings(client_certificates={"a.example:443": files, "b.example:443": files})
        error = self.assertRaises(TLSFileError, Contexts, settings, [], lambda *arguments: False, ())
        self.assertEqual(
            error.problems,
            tuple(
                ("client_certificates", f"{name}.example:443: /no/such/file: No such file or directory")
                for name in "ab"
            ),
        )

    def test_same_pattern_twice(self) -> None:
        """Two spellings of one pattern are refused: which one counts would be chance."""
        error = self.assertRaises(TLSFileError, self.contexts, "a.example:443", "A.example:443")
        self.assertIn("client_certificates", str(error))
