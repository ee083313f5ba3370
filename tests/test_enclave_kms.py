"""Tests of `nitroproxy.enclave.kms`."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from nitroproxy.enclave.attestor import DOCUMENT
from nitroproxy.enclave.kms import Recipient, add_kms_pages
from nitroproxy.enclave.pages import Attesting
from nitroproxy.kms.envelope import MAX_ENVELOPE
from nitroproxy.kms.recipient import RecipientKey
from nitroproxy.proxy.route import Local
from nitroproxy.telemetry.health import LocalRoot
from tests.kms import OWN, REAL, own_key, own_plaintext, stored
from tests.wire import OneHop, split_head


class PagesTests(SynchronousTestCase):
    """The pages, through the engine, with the key in this process and an NSM that the test plays."""

    def setUp(self) -> None:
        self.made = 0
        self.recipient = Recipient(self.make)
        self.asked: list[tuple[str, Any]] = []
        self.silent = False
        self.document: Any = {"octets": b"a document"}
        root = LocalRoot("nitroproxy-enclave")
        add_kms_pages(root, "nitroproxy-enclave", Attesting(self.ask_once), self.ask_once)
        self.site = Site(root)

    def make(self) -> RecipientKey:
        self.made += 1
        return RecipientKey(own_key())

    def ask_once(self, what: str, about: Any, timeout: float = 0.7) -> Deferred[Any]:
        self.asked.append((what, about))
        if self.silent:
            return succeed(None)
        if what == DOCUMENT:
            return succeed(self.document)
        return Deferred.fromCoroutine(self.recipient.answerers[what](about))

    def post(self, path: str, body: bytes = b"", *lines: str, method: str = "POST") -> tuple[int, Any, bytes]:
        client = OneHop(lambda request: Local(self.site)).client()
        fields = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8080", f"Content-Length: {len(body)}", *lines]
        client.receive("\r\n".join([*fields, "", ""]).encode() + body)
        line, found, content = split_head(client.take())
        return int(line[9:12]), found, content

    def test_recipient(self) -> None:
        """The Recipient of a request: a document that names the key, which is made once."""
        for number in range(3):
            status, fields, body = self.post("/kms/recipient")
            self.assertEqual((status, fields[b"cache-control"]), (200, b"no-store"))
            self.assertEqual(fields[b"content-type"], b"application/json")
            told = json.loads(body)
            self.assertEqual(base64.b64decode(told["AttestationDocument"]), b"a document")
            self.assertEqual(told["KeyEncryptionAlgorithm"], "RSAES_OAEP_SHA_256")
            self.assertEqual(self.asked[-1], (DOCUMENT, ["kms", None, None, RecipientKey(own_key()).public_key]))
            self.assertEqual((self.made, len(self.asked)), (1, 2 * (number + 1)))

    def test_open(self) -> None:
        """An envelope for the key is opened."""
        status, fields, body = self.post("/kms/open", stored(OWN))
        self.assertEqual((status, body), (200, own_plaintext()))
        self.assertEqual(
            (fields[b"content-type"], fields[b"cache-control"]), (b"application/octet-stream", b"no-store")
        )

    def test_not_opened(self) -> None:
        """Whatever is wrong with an envelope, the answer is the same."""
        answers = set()
        broken = bytearray(stored(OWN))
        broken[-20] ^= 1
        longest = b"\x30" * MAX_ENVELOPE
        for body in (b"", b"x", stored(OWN)[:-1], stored(REAL[0]), stored(REAL[1]), longest, longest + b"x"):
            status, _, content = self.post("/kms/open", body)
            told = json.loads(content)
            answers.add((status, told["error"], told["detail"]))
        self.assertEqual(len(answers), 1)
        self.assertEqual(answers.pop()[:2], (400, "malformed_request"))
        self.assertEqual(self.post("/kms/open", b"x" * 70000)[0], 413)

    def test_empty_secret(self) -> None:
        """A secret of no bytes is a secret."""
        self.patch(RecipientKey, "open", lambda key, envelope: b"")
        self.assertEqual(self.post("/kms/open", stored(OWN))[::2], (200, b""))

    def test_no_nsm(self) -> None:
        """When the NSM fails, or the process that has it does not answer: 503."""
        self.document = {"problem": "the NSM is busy", "busy": True}
        status, fields, body = self.post("/kms/recipient")
        self.assertEqual((status, fields[b"retry-after"], json.loads(body)["detail"]), (503, b"1", "the NSM is busy"))
        self.silent = True
        for path, sent in (("/kms/recipient", b""), ("/kms/open", stored(OWN))):
            self.assertEqual(self.post(path, sent)[0], 503)

    def test_requests(self) -> None:
        """Nothing else: no body for a Recipient, no other method or path, no browser or proxy between."""
        self.assertEqual(self.post("/kms/recipient", b"{}")[0], 400)
        for path in ("/kms/recipient", "/kms/open"):
            self.assertEqual(self.post(path, method="GET")[0], 405)
            self.assertEqual(self.post(path, b"", "X-Forwarded-For: 10.0.0.1")[0], 403)
            self.assertEqual(self.post(path, b"", "Origin: null")[0], 403)
            self.assertEqual(self.post(f"{path}/x")[0], 404)
        self.assertEqual(self.post("/kms")[0], 405)
        self.assertEqual((self.asked, self.made), ([], 0))
