"""Tests of `nitroproxy.enclave.pages`: requests to the pages about attestation."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request, Site

from nitroproxy.enclave.attestor import ANSWER_SECONDS, CHALLENGE, DOCUMENT, RANDOM, REGISTER
from nitroproxy.enclave.pages import Attesting, add_pages, nothing_exported
from nitroproxy.proxy.route import Local
from nitroproxy.telemetry.health import LocalRoot
from tests.attestation.pki import T0
from tests.wire import OneHop, split_head

NONCE = b"00112233445566778899aabbccddeeff"
DOCUMENT_BYTES = b"a document of " + str(T0).encode()


class PageTests(SynchronousTestCase):
    """Each page, whose questions the test answers."""

    def setUp(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.answer: Any = {"octets": DOCUMENT_BYTES}
        self.exported: bytes | None = None
        self.sites = {own: self.site(own=own) for own in (True, False)}

    def ask_once(self, what: str, about: Any, timeout: float = 0.7) -> Deferred[Any]:
        self.assertEqual(timeout, ANSWER_SECONDS)
        self.asked.append((what, about))
        return succeed(self.answer)

    def site(self, *, own: bool) -> Site:
        root = LocalRoot("nitroproxy-enclave")

        def exported(request: Request) -> bytes | None:
            return self.exported

        add_pages(root, "nitroproxy-enclave", Attesting(self.ask_once), exported, own=own)
        return Site(root)

    def ask(
        self, method: bytes, target: bytes, body: bytes = b"", *, own: bool = True, field: bytes = b"Host: 127.0.0.1"
    ) -> Any:
        client = OneHop(lambda request: Local(self.sites[own], query=True)).client()
        length = b"Content-Length: %d" % len(body)
        client.receive(b"%b %b HTTP/1.1\r\n%b\r\n%b\r\n\r\n" % (method, target, field, length) + body)
        line, fields, content = split_head(client.take())
        if fields.get(b"transfer-encoding") == b"chunked":
            self.fail("a page is chunked")
        headers = {name.decode().lower(): value.decode() for name, value in fields.items()}
        return int(line.split()[1]), headers, content

    def test_challenge(self) -> None:
        """A document for a nonce of 16 to 64 bytes, on each listener; with what identifies the connection."""
        for own in (True, False):
            for nonce in (NONCE, NONCE * 4, NONCE.upper()):
                status, headers, body = self.ask(b"GET", b"/enclave/attestation?nonce=" + nonce, own=own)
                self.assertEqual((status, body), (200, DOCUMENT_BYTES))
                self.assertEqual(headers["content-type"], 'application/cose; cose-type="cose-sign1"')
                self.assertEqual(headers["cache-control"], "no-store")
                self.assertEqual(self.asked.pop(), (CHALLENGE, [bytes.fromhex(nonce.decode()), None]))
        self.exported = b"e" * 32
        self.ask(b"GET", b"/enclave/attestation?nonce=" + NONCE)
        self.assertEqual(self.asked.pop(), (CHALLENGE, [bytes.fromhex(NONCE.decode()), b"e" * 32]))

    def test_bad_nonces(self) -> None:
        """A nonce that is missing, given twice, too short, too long, or no hexadecimal digits is refused."""
        for query in (
            b"",
            b"?",
            b"?nonce",
            b"?nonce=",
            b"?nonce=" + NONCE[:-2],
            b"?nonce=" + NONCE[:-1],
            b"?nonce=" + NONCE * 4 + b"00",
            b"?nonce=" + NONCE[:-1] + b"g",
            b"?nonce=" + NONCE + b"&nonce=" + NONCE,
            b"?nonce=" + NONCE + b"&x=1",
            b"?nonce=" + NONCE + b"%0a",
            b"?nonce=%20" + NONCE,
        ):
            status, _, body = self.ask(b"GET", b"/enclave/attestation" + query)
            self.assertEqual(status, 400, query)
            self.assertIn("expected ?nonce= with 16 to 64 bytes", json.loads(body)["detail"])
        self.assertEqual(self.asked, [])

    def test_unavailable(self) -> None:
        """When the NSM fails, is busy, or its process does not answer, the client may try again."""
        for answer in (None, {"problem": "the NSM is busy", "busy": True}):
            self.answer = answer
            for method, target, body in (
                (b"GET", b"/enclave/attestation?nonce=" + NONCE, b""),
                (b"POST", b"/enclave/attestation", b"{}"),
                (b"PUT", b"/enclave/attestation/user-data", b"x"),
                (b"GET", b"/enclave/random", b""),
            ):
                status, headers, text = self.ask(method, target, body)
                self.assertEqual((status, json.loads(text)["error"]), (503, "attestation_unavailable"))
                self.assertEqual(headers["retry-after"], "1")

    def test_document(self) -> None:
        """The application gives nonce, user_data and public_key in base64, or leaves them out."""
        octets = {"nonce": b"n" * 512, "user_data": b"u" * 512, "public_key": b"p" * 1024}
        text = {name: base64.b64encode(value).decode() for name, value in octets.items()}
        for given, expected in (
            (text, list(octets.values())),
            ({}, [None] * 3),
            ({"nonce": None, "user_data": ""}, [None, b"", None]),
        ):
            status, headers, body = self.ask(b"POST", b"/enclave/attestation", json.dumps(given).encode())
            self.assertEqual((status, body), (200, DOCUMENT_BYTES))
            self.assertEqual(headers["content-type"], 'application/cose; cose-type="cose-sign1"')
            self.assertEqual(self.asked.pop(), (DOCUMENT, ["application", *expected]))

    def test_bad_documents(self) -> None:
        """What is no such object, is too long, or is nitroproxy's own is refused, and is not repeated."""

        def b64(value: bytes) -> str:
            return base64.b64encode(value).decode()

        for body, why in (
            (b"", "expected {"),
            (b"[]", "expected {"),
            (b"1", "expected {"),
            (b"[" * 10000, "expected {"),
            (b'{"nonce": null, "nonce": null}', "expected {"),
            (b'{"other": null}', "expected {"),
            (b'{"nonce": 1}', "nonce: expected base64"),
            (b'{"nonce": ["YQ=="]}', "nonce: expected base64"),
            (b'{"nonce": "YQ"}', "nonce: expected base64"),
            (b'{"nonce": "YQ==\\n"}', "nonce: expected base64"),
            ('{"nonce": "ü"}'.encode(), "nonce: expected base64"),
            (json.dumps({"nonce": b64(bytes(513))}).encode(), "nonce: expected 0 to 512 bytes, got 513"),
            (json.dumps({"public_key": ""}).encode(), "public_key: expected 1 to 1024 bytes, got 0"),
            (json.dumps({"user_data": b64(b"nitroproxy/tls/1")}).encode(), "nitroproxy's own"),
            (json.dumps({"user_data": b64(b"nitroproxy/")}).encode(), "nitroproxy's own"),
        ):
            status, _, text = self.ask(b"POST", b"/enclave/attestation", body)
            self.assertEqual(status, 400, body[:40])
            self.assertIn(why, json.loads(text)["detail"])
        self.assertEqual(self.asked, [])

    def test_not_direct(self) -> None:
        """What has come through a proxy, or to another name, gets no document with its own fields and registers
        nothing."""
        for field in (b"Host: a", b"Host: localhost\r\nX-Forwarded-For: 192.0.2.1", b"Host: localhost\r\nVia: 1.1 a"):
            for method, target in ((b"POST", b"/enclave/attestation"), (b"PUT", b"/enclave/attestation/user-data")):
                status, _, text = self.ask(method, target, b"{}", field=field)
                self.assertEqual((status, json.loads(text)["error"]), (403, "page_denied"), (method, field))
        self.assertEqual(self.asked, [])

    def test_user_data(self) -> None:
        """The application registers up to 496 bytes as they are."""
        for data in (b"", b"\0\xff" * 248):
            status, headers, body = self.ask(b"PUT", b"/enclave/attestation/user-data", data)
            self.assertEqual((status, body), (204, b""))
            self.assertNotIn("content-type", headers)
            self.assertEqual(self.asked.pop(), (REGISTER, data))
        status, _, body = self.ask(b"PUT", b"/enclave/attestation/user-data", bytes(497))
        self.assertEqual(status, 400)
        self.assertIn("at most 496 bytes, got 497", json.loads(body)["detail"])

    def test_random(self) -> None:
        """1 to 256 random bytes."""
        self.answer = {"octets": bytes(range(256))}
        for query, count in ((b"", 32), (b"?bytes=1", 1), (b"?bytes=256", 256)):
            status, headers, body = self.ask(b"GET", b"/enclave/random" + query)
            self.assertEqual((status, body), (200, bytes(range(count))))
            self.assertEqual(headers["content-type"], "application/octet-stream")
            self.assertEqual(self.asked.pop(), (RANDOM, None))
        for query in (
            b"?bytes=0",
            b"?bytes=257",
            b"?bytes=-1",
            b"?bytes=",
            b"?bytes=1&bytes=2",
            b"?x=1",
            b"?bytes=1e1",
        ):
            self.assertEqual(self.ask(b"GET", b"/enclave/random" + query)[0], 400, query)

    def test_of_the_host(self) -> None:
        """The listener for the host has nothing of what is for applications in the enclave."""
        for method, target, status in (
            (b"POST", b"/enclave/attestation", 405),
            (b"PUT", b"/enclave/attestation/user-data", 404),
            (b"PUT", b"/enclave/attestation", 405),
            (b"GET", b"/enclave/attestation/user-data", 404),
            (b"GET", b"/enclave/random", 404),
            (b"GET", b"/enclave", 405),
            (b"GET", b"/enclave/", 404),
        ):
            self.assertEqual(self.ask(method, target, b"{}", own=False)[0], status, (method, target))
        self.assertEqual(self.asked, [])

    def test_methods(self) -> None:
        """Other methods get 405 with those that the page has."""
        status, headers, _ = self.ask(b"DELETE", b"/enclave/attestation")
        self.assertEqual((status, headers["allow"]), (405, "GET, HEAD, POST"))
        status, headers, _ = self.ask(b"GET", b"/enclave/attestation/user-data")
        self.assertEqual((status, headers["allow"]), (405, "PUT"))

    def test_nothing_exported(self) -> None:
        """Listeners without TLS have nothing that identifies a connection."""
        request: Any = object()
        self.assertIsNone(nothing_exported(request))  # type: ignore[func-returns-value]
