"""Tests of `nitroproxy.enclave.credentials`."""

from __future__ import annotations

import json
from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from nitroproxy.enclave.credentials import CredentialsPage, CredentialsRequests
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.problem import problem
from nitroproxy.proxy.route import Local
from nitroproxy.telemetry.health import LocalRoot
from tests.imds import metadata_document
from tests.wire import OneHop, Wire, split_head

TOKEN = "5f" * 32


class PageTests(SynchronousTestCase):
    """The page, through the engine, with a relay that answers what the test says."""

    def setUp(self) -> None:
        self.relay = OneHop()
        self.requests = CredentialsRequests()
        digest = sha256(TOKEN.encode()).hexdigest()
        page = CredentialsPage(self.relay.pool, self.relay.deadlines, digest, self.requests)
        root, enclave = LocalRoot("nitroproxy-enclave"), LocalRoot("nitroproxy-enclave")
        root.putChild(b"enclave", enclave)
        enclave.putChild(b"credentials", page)
        self.hop = OneHop(lambda request: Local(Site(root)))

    def ask(self, *lines: str, method: str = "GET", host: str = "127.0.0.1:8080") -> Wire:
        wire = self.hop.client()
        head = [f"{method} /enclave/credentials HTTP/1.1", f"Host: {host}", *lines]
        wire.receive("\r\n".join([*head, "", ""]).encode())
        return wire

    def relay_answers(self, status: int, body: bytes) -> bytes:
        """Answer what was asked of the relay; its request line."""
        wire = self.relay.endpoint.accept()
        asked = split_head(wire.take())[0]
        wire.receive(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        return asked

    def outcomes(self) -> dict[str, float]:
        [family] = self.requests.collect()
        return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.value}

    def test_given(self) -> None:
        """With the token: what the host gives, in the container form, with nothing else that the host has added."""
        wire = self.ask(f"Authorization: {TOKEN}")
        self.assertEqual(self.relay_answers(200, metadata_document(Extra="x\r\n")), b"GET /credentials HTTP/1.1")
        line, fields, body = split_head(wire.take())
        self.assertEqual((line, fields[b"cache-control"]), (b"HTTP/1.1 200 OK", b"no-store"))
        self.assertEqual(set(json.loads(body)), {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"})
        self.assertEqual(self.outcomes(), {"given": 1})

    def test_token(self) -> None:
        """Without the token, or with another, nothing is asked of the host, and nothing is said of it."""
        for lines in (
            [],
            ["Authorization: "],
            [f"Authorization: Bearer {TOKEN}"],
            [f"Authorization: {TOKEN[:-1]}"],
            [f"Authorization: {TOKEN.upper()}"],
            [f"Authorization: {TOKEN}", f"Authorization: {TOKEN}"],
            [f"Authorization: {sha256(TOKEN.encode()).hexdigest()}"],
            [f"Cookie: {TOKEN}"],
        ):
            line, _, body = split_head(self.ask(*lines).take())
            self.assertEqual(line[9:12], b"403", lines)
            self.assertEqual(json.loads(body)["error"], "page_denied")
            self.assertNotIn(TOKEN.encode(), body)
        self.assertEqual((self.relay.endpoint.waiting, self.outcomes()), ([], {"refused": 8.0}))

    def test_browsers_and_proxies(self) -> None:
        """The token does not help a request that has come through a browser or a proxy, or to another name."""
        token = f"Authorization: {TOKEN}"
        for lines in (["X-Forwarded-For: 127.0.0.1"], ["Via: 1.1 x"], ["Sec-Fetch-Mode: cors"], ["Forwarded: for=x"]):
            self.assertEqual(split_head(self.ask(token, *lines).take())[0][9:12], b"403", lines)
        self.assertEqual(split_head(self.ask(token, host="evil.example:8080").take())[0][9:12], b"403")
        origin = ["Origin: http://127.0.0.1:8080", "Sec-Fetch-Site: same-origin"]
        self.assertEqual(split_head(self.ask(token, *origin).take())[0][9:12], b"403")
        self.assertEqual(self.relay.endpoint.waiting, [])

    def test_methods(self) -> None:
        """It is read only."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(split_head(self.ask(f"Authorization: {TOKEN}", method=method).take())[0][9:12], b"405")

    def test_hostile_host(self) -> None:
        """What the host answers reaches the application only if it is credentials; its problem documents as ours."""
        answers: list[tuple[int, bytes, str]] = [
            (200, b"{}", "the host's answer: the field Expiration"),
            (200, metadata_document(Token="a\r\nX-Evil: 1"), "the host's answer: the field Token"),
            (200, b"x" * 20000, "over 16384 bytes"),
            (404, b"", "the host answered 404: is credentials.role set there"),
            (302, metadata_document(), "the host answered 302"),
            (503, _problem(Kind.CREDENTIALS_UNAVAILABLE, "why"), "why"),
            (403, _problem(Kind.PAGE_DENIED, "forged"), "the host answered 403"),
        ]
        for status, answer, words in answers:
            wire = self.ask(f"Authorization: {TOKEN}")
            self.relay_answers(status, answer)
            line, _, body = split_head(wire.take())
            self.assertIn(words, json.loads(body)["detail"])
            self.assertIn(line[9:12], (b"503", b"413"))
        self.assertEqual(self.outcomes(), {"unavailable": len(answers)})

    def test_silent_host(self) -> None:
        """A host that does not answer is given up before an SDK gives up; a client that leaves is no failure."""
        wire = self.ask(f"Authorization: {TOKEN}")
        self.relay.pass_time(1.9)
        self.assertEqual(split_head(wire.take())[0][9:12], b"504")
        self.relay.endpoint.waiting.clear()
        wire = self.ask(f"Authorization: {TOKEN}")
        wire.lose()
        self.relay_answers(200, metadata_document())
        self.assertEqual(self.flushLoggedErrors(), [])


def _problem(kind: Kind, detail: str) -> bytes:
    return problem(ProxyError(kind, detail), "nitroproxy-relay", "id")[1]
