"""Tests of `nitroproxy.host.credentials`."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.credentials import CredentialsDaemon
from nitroproxy.host.egress import relay_site
from nitroproxy.policy import Policy
from nitroproxy.proxy.problem import problem
from nitroproxy.proxy.route import Local
from nitroproxy.telemetry.health import Check, Health
from tests.imds import metadata_document
from tests.wire import OneHop, split_head


class RelayedTests(SynchronousTestCase):
    """The relay's page, with a credentials daemon that answers what the test says."""

    def setUp(self) -> None:
        self.below = OneHop()
        self.daemon = CredentialsDaemon(self.below.pool, self.below.deadlines)
        site = relay_site(cast(Any, None), Policy(["*:443"], []), "1", self.daemon)
        self.hop = OneHop(lambda request: Local(site))

    def answer(self, status: int, body: bytes) -> bytes:
        """Answer what was asked of the credentials daemon; its request line."""
        wire = self.below.endpoint.accept()
        asked = split_head(wire.take())[0]
        wire.receive(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        return asked

    def get(self, status: int, body: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """The relay's answer when the daemon's is this."""
        wire = self.hop.client()
        wire.receive(b"GET /credentials HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(self.answer(status, body), b"GET /credentials HTTP/1.1")
        return split_head(wire.take())

    def outcomes(self) -> dict[str, float]:
        [family] = self.daemon.collect()
        return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.name.endswith("_total")}

    def test_passed_on(self) -> None:
        """What the daemon gives is read and written anew."""
        line, fields, body = self.get(200, metadata_document())
        self.assertEqual((line, fields[b"cache-control"]), (b"HTTP/1.1 200 OK", b"no-store"))
        self.assertEqual(set(json.loads(body)), {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"})
        self.assertEqual(self.outcomes(), {"given": 1, "unavailable": 0})

    def test_none(self) -> None:
        """Every failure is 503, with the reason and the hop that found it."""
        reason = problem(ProxyError(Kind.CREDENTIALS_UNAVAILABLE, "why"), "nitroproxy-credentials", "id")[1]
        for status, answer, words, hop in (
            (503, reason, "why", "nitroproxy-credentials"),
            (500, b"", "answered 500", "nitroproxy-relay"),
            (200, b"{}", "not usable", "nitroproxy-relay"),
            (200, b"x" * 20000, "over 16384 bytes", "nitroproxy-relay"),
        ):
            line, _, body = self.get(status, answer)
            told = json.loads(body)
            self.assertEqual((line[9:12], told["error"], told["hop"]), (b"503", "credentials_unavailable", hop))
            self.assertIn(words, told["detail"])
        self.assertEqual(self.outcomes(), {"given": 0, "unavailable": 4})

    def test_no_daemon(self) -> None:
        """A daemon that does not run, or does not answer in time."""
        wire = self.hop.client()
        wire.receive(b"GET /credentials HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.below.endpoint.refuse(ProxyError(Kind.CREDENTIALS_UNAVAILABLE, "No such file or directory"))
        self.assertEqual(split_head(wire.take())[0][9:12], b"503")
        wire.receive(b"GET /credentials HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.below.pass_time(1.7)
        self.assertEqual(split_head(wire.take())[0][9:12], b"503")

    def test_not_configured(self) -> None:
        """Without credentials.role the relay has no such page."""
        site = relay_site(cast(Any, None), Policy(["*:443"], []), "1")
        wire = OneHop(lambda request: Local(site)).client()
        wire.receive(b"GET /credentials HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(split_head(wire.take())[0][9:12], b"404")

    def check(self, status: int, body: bytes) -> Check:
        checking: Deferred[Check] = Deferred.fromCoroutine(self.daemon.check())
        self.assertEqual(self.answer(status, body), b"GET /health HTTP/1.1")
        return self.successResultOf(checking)

    def test_health(self) -> None:
        """The daemon's own word; at worst a warning, since the proxy works without credentials."""
        for said, check in (
            (Check("pass", "until then"), Check("pass", "until then")),
            (Check("warn", "old"), Check("warn", "old")),
            (Check("fail", "none"), Check("warn", "none")),
        ):
            body = Health("nitroproxy-credentials", "1", {"credentials": said}).to_json()
            self.assertEqual(self.check(503, body), check)
        self.assertEqual(self.check(200, b"nonsense").status, "warn")
        checking: Deferred[Check] = Deferred.fromCoroutine(self.daemon.check())
        self.below.pass_time(0.6)
        self.assertEqual(self.successResultOf(checking).status, "warn")
