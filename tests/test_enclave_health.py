"""What the enclave daemon says of itself and of the way out."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.health import HealthOfEnclave, attestation_check
from nitroproxy.enclave.identity import IdentityState
from nitroproxy.policy import Policy
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.telemetry.health import Check, Health
from tests.wire import OneHop

POLICY = Policy(["*:443"], [])


class HealthOfEnclaveTests(SynchronousTestCase):
    """With a relay that answers what the test says."""

    def setUp(self) -> None:
        self.hop = OneHop()

    def examine(self, answer: Health | None, **more: Any) -> Health:
        examine = HealthOfEnclave(
            self.hop.endpoint, POLICY, self.hop.deadlines, "1", PoolSettings(), verifies=True, **more
        )
        examining: Deferred[Health] = Deferred.fromCoroutine(examine())
        wire = self.hop.endpoint.accept()
        body = answer.to_json() if answer is not None else b"nonsense"
        wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return self.successResultOf(examining)

    def test_layers(self) -> None:
        """The enclave itself, and what the relay says of itself, of DNS and of the rules."""
        theirs = Health(
            "relay", "1", {"egress": Check("pass"), "dns": Check("warn", "slow"), "policy": Check("pass", "x")}
        )
        checks = self.examine(theirs).checks
        self.assertEqual(list(checks), ["enclave", "egress", "dns", "policy", "tls_verification"])
        self.assertEqual([check.status for check in checks.values()], ["pass", "pass", "warn", "warn", "pass"])

    def test_hostile_relay(self) -> None:
        """The relay does not overrule what the enclave examines itself: a sibling of K7 on the other side."""
        forged = {layer: Check("fail", "forged") for layer in ("enclave", "workers", "tls_verification", "host")}
        checks = self.examine(Health("relay", "1", {"egress": Check("pass"), **forged})).checks
        self.assertEqual({layer: check.status for layer, check in checks.items()}, dict.fromkeys(checks, "pass"))
        self.assertEqual(set(checks), {"enclave", "egress", "tls_verification"})

    def test_no_health(self) -> None:
        """A document that is none, or does not say how the relay is, fails the layer."""
        for answer in (None, Health("relay", "1"), Health("relay", "1", {"dns": Check("pass")})):
            self.assertEqual(self.examine(answer).checks["egress"].status, "fail")

    def test_attestation(self) -> None:
        """With an identity it says how that is."""
        theirs = Health("relay", "1", {"egress": Check("pass")})
        self.assertNotIn("attestation", self.examine(theirs).checks)
        check = self.examine(theirs, attestation=lambda: Check("warn", "DEBUG")).checks["attestation"]
        self.assertEqual(check, Check("warn", "DEBUG"))

    def test_attestation_check(self) -> None:
        """An identity is well while its certificate is renewed; it warns of whatever clients may refuse, and fails when
        they do."""
        good = IdentityState(b"", b"", 1000.0, 0.5, 6000.0, debug=False, emulated=False)
        for changes, now, status, output in (
            ({}, 1001.0, "pass", "the certificate is 1 s old"),
            ({}, 990.0, "pass", "0 s old"),
            ({"skew": -7.0}, 1001.0, "warn", "differs from the NSM's by -7 s"),
            ({"emulated": True}, 1001.0, "warn", "EMULATED"),
            ({"debug": True}, 1001.0, "warn", "DEBUG"),
            ({}, 3500.0, "warn", "should have been renewed"),
            ({"debug": True}, 4600.0, "fail", "clients refuse it"),
            ({"ends": 1600.0}, 1599.0, "pass", "599 s old"),
            ({"ends": 1600.0}, 1600.0, "fail", "has ended"),
        ):
            check = attestation_check(msgspec.structs.replace(good, **changes), now)
            self.assertEqual(check.status, status)
            self.assertIn(output, check.output)

    def test_workers(self) -> None:
        """With several processes it says whether all answer."""

        async def workers() -> Check:
            return Check("warn", "of 2 workers these do not answer: 2")

        health = self.examine(Health("relay", "1", {"egress": Check("pass")}), workers=workers)
        self.assertEqual(health.checks["workers"].status, "warn")
