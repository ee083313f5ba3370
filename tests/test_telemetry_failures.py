"""The latest failures."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.record import Record
from nitroproxy.telemetry.failures import Failure, Failures

GATEWAY, ENCLAVE, RELAY = "nitroproxy-host", "nitroproxy-enclave", "nitroproxy-relay"


class FailuresTests(SynchronousTestCase):
    """Of a gateway, and of the enclave's log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(GATEWAY, self.clock.seconds)

    def end(self, host: str, kind: Kind | None, *, passed_on: tuple[str, str] | None = None, id_: str = "id") -> None:
        record = Record(0.0, id_.encode(), b"GET")
        record.host, record.port = host, 443 if host else 0
        if kind is not None:
            record.failed(ProxyError(kind, "secret /path?query"), GATEWAY)
        record.passed_on = passed_on
        self.failures.ended(record, 0.0)

    def log(self, **fields: Any) -> None:
        whole = {"event": "access", "host": "a.example", "port": 443, "request_id": "id", "found_by": ENCLAVE, **fields}
        self.failures.take({name: value for name, value in whole.items() if value is not None})

    def told(self) -> list[Failure]:
        return self.failures.tell()

    def test_requests(self) -> None:
        """A failure of the gateway's, and one that it passed on; what succeeded is none, and so is a mistyped page."""
        self.end("a.example", Kind.ENCLAVE_UNAVAILABLE)
        self.end("b.example", None, passed_on=(RELAY, "dns_error"))
        self.end("c.example", None)
        self.end("", Kind.NOT_FOUND)
        self.end("", Kind.METHOD_NOT_ALLOWED)
        self.clock.advance(3)
        self.assertEqual(
            self.told(),
            [
                Failure("enclave_unavailable", GATEWAY, "a.example:443", 1, 3.0, "id"),
                Failure("dns_error", RELAY, "b.example:443", 1, 3.0, "id"),
            ],
        )

    def test_again(self) -> None:
        """What fails again is counted, with the latest time and id."""
        self.end("a.example", Kind.ENCLAVE_UNAVAILABLE)
        self.clock.advance(10)
        self.end("a.example", Kind.ENCLAVE_UNAVAILABLE, id_="second")
        self.clock.advance(1)
        self.assertEqual(self.told(), [Failure("enclave_unavailable", GATEWAY, "a.example:443", 2, 1.0, "second")])

    def test_refused(self) -> None:
        """A connection that was turned away has neither destination nor id."""
        self.failures.refused(Kind.CONNECTION_LIMIT_REACHED, IPv4Address("TCP", "192.0.2.1", 1))
        self.assertEqual(self.told(), [Failure("connection_limit_reached", GATEWAY, "", 1, 0.0, "")])

    def test_bounded(self) -> None:
        """A flood of one failure, to ever other destinations, keeps a few of them and pushes no other failure out."""
        self.end("a.example", Kind.DNS_ERROR)
        for number in range(1000):
            self.end(f"{number}.example", Kind.ENCLAVE_UNAVAILABLE)
            self.failures.take(
                {"event": "access", "error": "dns_timeout", "found_by": RELAY, "host": "x" * 5000, "port": number}
            )
        found = [failure.destination for failure in self.told() if failure.error == "enclave_unavailable"]
        self.assertEqual(found, [f"{number}.example:443" for number in range(992, 1000)])
        self.assertIn("dns_error", [failure.error for failure in self.told()])
        self.assertTrue(all(len(failure.destination) <= 80 for failure in self.told()))
        for number in range(1000):
            self.end("a.example", None, passed_on=(RELAY, f"token_{number}"))
        self.assertLessEqual(len(self.told()), 32 * 8)

    def test_log(self) -> None:
        """The enclave's log tells of failures by their names; what is no failure only shows that it tells."""
        self.assertFalse(self.failures.told)
        self.log(error="client_gone")
        self.log()
        self.assertEqual((self.told(), self.failures.told), ([], True))
        self.log(error="tls_certificate_error", detail="expired")
        self.failures.take({"event": "connection_refused", "hop": ENCLAVE, "reason": "peer_denied", "peer": "vsock"})
        self.assertEqual(
            self.told(),
            [
                Failure("tls_certificate_error", ENCLAVE, "a.example:443", 1, 0.0, "id"),
                Failure("peer_denied", ENCLAVE, "", 1, 0.0, ""),
            ],
        )

    def test_hostile_log(self) -> None:
        """What the enclave makes up is left out, or made harmless."""
        for fields in (
            {"error": "no_such_error"},
            {"error": "DNS_ERROR"},
            {"error": "dns_error", "found_by": "evil"},
            {"error": "dns_error", "found_by": None},
            {"error": 5},
            {"error": "not_found"},
        ):
            self.log(**fields)
        self.assertEqual(self.told(), [])
        self.log(error="dns_error", host="\x1b[2J\u202e", port="<b>", request_id="a b\n")
        [failure] = self.told()
        self.assertTrue(failure.destination.isprintable())
        self.assertEqual(failure.request_id, "")

    def test_answer(self) -> None:
        """The answer to another process is plain values."""
        self.end("a.example", Kind.DNS_ERROR)
        answer: Any = self.successResultOf(Deferred.fromCoroutine(self.failures.answer(None)))
        self.assertEqual(answer[0]["destination"], "a.example:443")
