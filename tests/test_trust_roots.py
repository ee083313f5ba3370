"""The trust anchors of attestation are constants: nothing that a host, an image or a person sets replaces or adds any.

Only a caller in Python gives others. Walks the schema, the variables, the command lines and the code.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import AWS_ROOTS
from nitroproxy.attestation.evidence import verify_certificate, verify_challenge
from nitroproxy.attestation.verification import verify
from nitroproxy.commands.main import build_parser
from nitroproxy.config.load import Configuration, ConfigurationError, load
from nitroproxy.config.schema import Settings
from nitroproxy.enclave.service import Options as EnclaveOptions
from nitroproxy.host.service import Options as HostOptions
from nitroproxy.tls.attested import AttestedAgent
from nitroproxy.tls.attested_endpoint import Verifier
from tests.attestation.pki import document, pki
from tests.commandlines import parsers

_PACKAGE = Path(__file__).parent.parent / "nitroproxy"
#: What a setting of trust anchors would be called.
_ANCHOR = re.compile(r"root|anchor|trust|aws|insecure|skip|no.?verify", re.IGNORECASE)
#: Files of authorities for TLS with destinations, and of clients' certificates: they have no say in attestation.
_AUTHORITIES = {"tls.ca_file", "tls.extra_ca_file", "ingress.client_ca_file"}


def keys() -> Iterator[str]:
    """Every key of the configuration."""
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            yield f"{section.name}.{field.name}"


class SettingsTests(SynchronousTestCase):
    """What can be set."""

    def test_keys(self) -> None:
        """No key of the configuration is one of trust anchors."""
        self.assertGreater(len(list(keys())), 40)
        self.assertEqual([key for key in keys() if _ANCHOR.search(key)], [])
        self.assertEqual({key for key in keys() if "ca_" in key}, _AUTHORITIES)

    def test_policies(self) -> None:
        """No key of a policy file is."""
        for key in ("roots", "root", "trust_anchors", "ca_file"):
            path = Path(self.mktemp())
            entry = {"name": "a", "pcrs": {str(index): "01" * 48 for index in range(3)}, "public": True}
            for content in ({"accept": [entry], key: []}, {"accept": [{**entry, key: "x"}]}):
                path.write_text(json.dumps(content))
                words = ["attest", "verify", "/dev/null", "--policy", str(path)]
                arguments = build_parser().parse_args(words)
                self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115  # closed with the process
                self.assertEqual(arguments.run(arguments), 2)

    def test_variables(self) -> None:
        """A variable that would name one is refused by the daemons."""
        for name in ("NITROPROXY_ATTESTATION_ROOTS", "NITROPROXY_ROOTS", "NITROPROXY_ATTESTATION_CA_FILE"):
            self.assertRaises(ConfigurationError, load, None, environ={name: "/tmp/root.pem"})
        self.assertIsInstance(load(None, environ={"AWS_ROOTS": "x"}), Configuration)

    def test_command_lines(self) -> None:
        """No option of a command or of a daemon names one, or turns verification off."""
        found = [
            option
            for parser in parsers(build_parser())
            for action in parser._actions
            for option in action.option_strings
            if _ANCHOR.search(option) and option not in ("--root", "--aws")
        ]
        self.assertEqual(found, [])
        roots = {parser.prog for parser in parsers(build_parser()) if "--root" in parser._option_string_actions}
        self.assertLessEqual({prog.split()[1] for prog in roots}, {"install-units", "image"}, "roots of file systems")
        attest = [parser for parser in parsers(build_parser()) if parser.prog.startswith("nitroproxy attest")]
        self.assertEqual(len(attest), 4)
        for options in (HostOptions({}), EnclaveOptions({})):
            self.assertEqual([name for name in options.longOpt if _ANCHOR.search(name)], [])

    def test_environment(self) -> None:
        """OpenSSL's own variables have no effect."""
        chain = pki()
        path, root, policy = Path(self.mktemp()), Path(self.mktemp()), Path(self.mktemp())
        path.write_bytes(document(chain))
        root.write_bytes(chain.cabundle[0])
        entry = {"name": "a", "pcrs": {str(index): f"{index + 1:02x}" * 48 for index in range(5)}}
        policy.write_text(json.dumps({"accept": [entry]}))
        code = "import sys; from nitroproxy.commands.main import main; sys.exit(main())"
        words = ["attest", "verify", str(path), "--policy", str(policy), "--archived"]
        names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
        environ = {**os.environ, **dict.fromkeys(names, str(root))}
        ended = subprocess.run(
            [sys.executable, "-c", code, *words], env=environ, capture_output=True, text=True, check=False
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn("refused: root: ", ended.stderr)


class CodeTests(SynchronousTestCase):
    """What the code does."""

    def test_defaults(self) -> None:
        """Every function that takes anchors has AWS's by default, of which there is one."""
        [digest] = AWS_ROOTS
        self.assertEqual(digest.hex()[:16], "641a0321a3e244ef")
        for function in (verify, verify_certificate, verify_challenge, Verifier.__init__, AttestedAgent.__init__):
            defaults: dict[str, object] = getattr(function, "__kwdefaults__")  # noqa: B009  # mypy knows it not of all
            self.assertIs(defaults["roots"], AWS_ROOTS, function)

    def test_passed_on(self) -> None:
        """Inside the package anchors are only passed on, never made."""
        for path in _PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                for keyword in node.keywords:
                    if keyword.arg == "roots":
                        self.assertIn(ast.unparse(keyword.value), ("roots", "self._roots"), f"{path}:{node.lineno}")

    def test_commands(self) -> None:
        """No command gives any."""
        for path in (_PACKAGE / "commands").glob("*.py"):
            source = path.read_text("utf-8")
            if path.name != "attest_client.py":
                self.assertNotIn("roots", source, path)
        client = (_PACKAGE / "commands" / "attest.py").read_text("utf-8")
        [called] = re.findall(r"connects_to\([^)]*\)[^)]*\)", client)
        self.assertEqual(called.count(","), 3, "the policy, the challenge, the client certificate")

    def test_pure(self) -> None:
        """The verifier reads no variable and no file: a policy's reader alone does."""
        for path in (_PACKAGE / "attestation").glob("*.py"):
            source = path.read_text("utf-8")
            for word in ("os.environ", "getenv", "open(", "Path(", "import certifi", "set_default_verify_paths"):
                self.assertNotIn(word, source, path.name)
