"""The example of docs/kms.md, run as it stands there: boto3, a stand-in for KMS, and the enclave's pages on an NSM that
is played."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor, threads
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from nitroproxy.attestation import verify
from nitroproxy.daemon.role import asked_here
from nitroproxy.enclave.attestor import open_attestor
from nitroproxy.enclave.gates import Machine
from nitroproxy.enclave.kms import Recipient, add_kms_pages
from nitroproxy.enclave.pages import Attesting, below_prefix
from nitroproxy.enclave.router import EnclaveRouter
from nitroproxy.policy import Policy
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.health import LocalRoot
from tests.attestation.fake_nsm import FakeNsm
from tests.kms import envelope_for

GUIDE = (Path(__file__).parent.parent / "docs/kms.md").read_text("utf-8")
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = b"a secret for this image"
HOP = "nitroproxy-enclave"


class Kms(Resource):
    """Decrypts everything to one secret, for who attests an image that the policy names.

    :ivar key: what its answers say is the key.
    :ivar refusals: why it did not answer.
    """

    isLeaf = True

    def __init__(self, nsm: FakeNsm) -> None:
        super().__init__()
        self.nsm = nsm
        self.key = ARN

    def render_POST(self, request: Request) -> bytes:
        """See the KMS API's Decrypt."""
        assert request.content is not None
        asked = json.loads(request.content.read())
        assert request.requestHeaders.getRawHeaders("x-amz-target") == ["TrentService.Decrypt"]
        recipient = asked["Recipient"]
        assert recipient["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
        document = base64.b64decode(recipient["AttestationDocument"])
        attested = verify(document, self.nsm.policy, now=datetime.now(UTC), roots=self.nsm.chain.roots)
        assert attested.public_key is not None
        sealed = base64.b64encode(envelope_for(attested.public_key, SECRET)).decode()
        request.setHeader("Content-Type", "application/x-amz-json-1.1")
        answer = {"KeyId": self.key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "CiphertextForRecipient": sealed}
        return json.dumps(answer).encode()


class ExampleTests(TestCase):
    """The example, as a program."""

    timeout = 60

    async def listen(self, factory: IProtocolFactory) -> int:
        """Listen on the loopback; the port."""
        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        number: int = address.port
        return number

    async def enclave(self, nsm: FakeNsm) -> int:
        """The enclave's listener for applications; the port."""
        self.patch(fcntl, "ioctl", nsm.ioctl)
        clocks = Path(self.mktemp())
        clocks.mkdir()
        for name in ("current", "available"):
            (clocks / f"{name}_clocksource").write_text("tsc\n")
        machine = Machine(clocks, "", os.devnull, "x86_64")
        attestor = open_attestor(reactor, os.devnull, emulated=True, machine=machine)
        self.addCleanup(attestor.stop)
        ask_once = asked_here({**attestor.answerers, **Recipient().answerers})
        root = LocalRoot(HOP)
        add_kms_pages(below_prefix(root, HOP), HOP, Attesting(ask_once), ask_once)
        nothing: Any = None
        router = EnclaveRouter(Policy(["*:443"], []), nothing, nothing, Site(root), allow_plaintext=False)
        deadlines = Deadlines(reactor)
        self.addCleanup(deadlines.stop)
        factory = DownstreamFactory(HOP, router, ListenerSettings(), deadlines)
        self.addCleanup(factory.abort)
        return await self.listen(factory)

    async def run_example(self, kms: Kms, port: int, rest: str) -> subprocess.CompletedProcess[str]:
        """The example's code, then *rest*."""
        [code] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
        with tempfile.TemporaryDirectory() as home:
            environ = {
                "ENCLAVE": f"http://127.0.0.1:{port}/enclave",
                "AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{await self.listen(Site(kms))}",
                "AWS_DEFAULT_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "example",
                "HOME": home,
            }

            def run() -> subprocess.CompletedProcess[str]:
                words = [sys.executable, "-c", f"{code}\n{rest}"]
                return subprocess.run(words, check=False, capture_output=True, text=True, env=environ)

            return await threads.deferToThread(run)

    async def test_decrypt(self) -> None:
        """KMS verifies the document and encrypts for its key; the application gets the secret, again and again."""
        nsm = FakeNsm(time.time)
        kms = Kms(nsm)
        port = await self.enclave(nsm)
        twice = f"print(decrypt(b'x', {ARN!r}) == decrypt(b'y', {ARN!r}) == {SECRET!r})"
        done = await self.run_example(kms, port, twice)
        self.assertEqual((done.stdout, done.returncode), ("True\n", 0), done.stderr)

    async def test_another_key(self) -> None:
        """An answer by another key is refused though it opens: the host may give another account's credentials."""
        nsm = FakeNsm(time.time)
        kms = Kms(nsm)
        kms.key = ARN.replace("111122223333", "444455556666")
        done = await self.run_example(kms, await self.enclave(nsm), f"decrypt(b'x', {ARN!r})")
        self.assertEqual(done.returncode, 1)
        self.assertIn("another key", done.stderr)


class GuideTests(TestCase):
    """What else the guide says."""

    def test_key_policy(self) -> None:
        """The key policy is JSON, and names three PCRs by KMS's condition keys."""
        [text] = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
        conditions = json.loads(text)["Condition"]["StringEqualsIgnoreCase"]
        self.assertEqual(list(conditions), [f"kms:RecipientAttestation:PCR{index}" for index in range(3)])
