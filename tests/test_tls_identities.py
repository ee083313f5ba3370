"""`nitroproxy.tls.identities`: what is said of client certificates that cannot be used."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.identities import load_identity
from nitroproxy.tls.settings import ClientCertificateFiles
from tests.tlsmemory import Authority


class IdentityTests(SynchronousTestCase):
    """Files of a certificate and its key."""

    def setUp(self) -> None:
        root = Authority()
        self.identity = Authority("intermediate", root).issue()
        self.certificate_file = self.write(self.identity.pem)
        self.key_file = self.write(self.identity.key_pem, 0o600)

    def write(self, content: bytes, mode: int = 0o644) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    def refused(self, key_file: str, certificate_file: str | None = None) -> str:
        files = ClientCertificateFiles(certificate_file or self.certificate_file, key_file)
        return str(self.assertRaises(ValueError, load_identity, "*:443", files))

    def test_good(self) -> None:
        """The certificate, those after it, and the key; both may be in one file."""
        one = self.write(self.identity.key_pem + self.identity.pem, 0o640)
        for files in (ClientCertificateFiles(self.certificate_file, self.key_file), ClientCertificateFiles(one, one)):
            identity = load_identity("*:443", files)
            self.assertEqual(identity.chain, (self.identity.certificate, *self.identity.intermediates))
            self.assertEqual(identity.key.private_numbers(), self.identity.key.private_numbers())  # type: ignore[union-attr]

    def test_mode(self) -> None:
        """A private key that others can reach, or the group can write, is refused with its mode and the cure."""
        for mode in (0o644, 0o604, 0o601, 0o660):
            path = self.write(self.identity.key_pem, mode)
            wanted = f"{path}: its mode is {mode:04o}, so others can reach the private key: chmod 0600 or 0640"
            self.assertEqual(self.refused(path), wanted)

    def test_mismatch(self) -> None:
        """A key of another certificate is refused, naming both files."""
        path = self.write(Authority().issue().key_pem, 0o600)
        wanted = f"{path}: is not the private key of the first certificate in {self.certificate_file}"
        self.assertEqual(self.refused(path), wanted)

    def test_passphrase(self) -> None:
        """An encrypted key is refused at once; nothing asks for a passphrase on a terminal."""
        encrypted = self.identity.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        self.assertIn(
            "the private key is encrypted; store it without a passphrase", self.refused(self.write(encrypted, 0o600))
        )

    def test_no_key(self) -> None:
        """What is no private key is refused with the reason: absent, not PEM, broken, of a kind that cannot sign."""
        exchange_only = x25519.X25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.assertEqual(self.refused("/no/such/key"), "/no/such/key: No such file or directory")
        for content, reason in (
            (b"nonsense", "holds no private key in PEM"),
            (self.identity.pem, "holds no private key that can be read"),
            (
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "holds no private key that can be read",
            ),
            (exchange_only, "a key of this kind cannot sign TLS handshakes"),
        ):
            self.assertIn(reason, self.refused(self.write(content, 0o600)))

    def test_no_certificate(self) -> None:
        """A certificate file without a certificate is named, not the key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        only_key = self.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        self.assertEqual(self.refused(self.key_file, only_key), f"{only_key}: holds no certificate in PEM")
