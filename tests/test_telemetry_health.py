"""Health documents."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.health import Check, Health, read_health, same_policy, tls_verification


class HealthTests(SynchronousTestCase):
    """A status for each layer, the worst for the whole."""

    def test_worst_counts(self) -> None:
        """The whole is as good as its worst layer."""
        for statuses, whole in (
            ([], "pass"),
            (["pass", "pass"], "pass"),
            (["pass", "warn"], "warn"),
            (["warn", "fail", "pass"], "fail"),
        ):
            checks = {str(i): Check(status) for i, status in enumerate(statuses)}  # type: ignore[arg-type]
            self.assertEqual(Health("x", "1", checks).status, whole)

    def test_round_trip(self) -> None:
        """What one daemon writes another reads."""
        health = Health("x", "1", {"egress": Check("warn", "slow"), "dns": Check("pass")})
        self.assertEqual(read_health(health.to_json(), ("egress", "dns")), health.checks)
        document = json.loads(health.to_json())
        self.assertEqual((document["status"], document["serviceId"], document["version"]), ("warn", "x", "1"))

    def test_not_health(self) -> None:
        """Anything else is refused as such; a layer whose status is none of ours is left out."""
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"checks": []}',
            b'{"checks": {"a": []}}',
            b'{"checks": {"a": [{}]}}',
            b'{"checks": {"a": [{"status": "odd"}]}}',
            b'{"checks": {"b": [{"status": "pass"}]}}',
            b'{"checks": {"a": [{"status": ["pass"]}]}}',
            b'{"checks": "a"}',
            b"nul",
            b"[" * 10_000,
        ):
            self.assertRaises(ValueError, read_health, body, ("a",))
        body = b'{"checks": {"a": [{"status": "pass"}], "b": [{"status": "odd"}]}}'
        self.assertEqual(read_health(body, ("a", "b")), {"a": Check("pass")})

    def test_other_layers(self) -> None:
        """What the other daemon says of layers that are not its own to examine is left out (K7)."""
        theirs = Health("x", "1", {"egress": Check("pass"), "host": Check("fail"), "enclave": Check("fail", "no")})
        self.assertEqual(read_health(theirs.to_json(), ("egress", "dns")), {"egress": Check("pass")})

    def test_odd_words(self) -> None:
        """What another daemon says of itself is cut to size and cannot move a terminal's cursor."""
        body = json.dumps({"checks": {"a": [{"status": "fail", "output": "b\r\x1b[2J" + "y" * 9999}]}})
        [check] = read_health(body.encode(), ("a",)).values()
        self.assertTrue(check.output.isprintable() and len(check.output) < 600)

    def test_policy(self) -> None:
        """Rules that differ are a warning that says both."""
        self.assertEqual(same_policy("abc", "abc"), Check("pass", "abc"))
        differs = same_policy("abc", "def")
        self.assertEqual(differs.status, "warn")
        self.assertIn("the enclave has abc, the relay def", differs.output)

    def test_tls_verification(self) -> None:
        """Verification that is off is a warning."""
        self.assertEqual([tls_verification(on).status for on in (True, False)], ["pass", "warn"])
