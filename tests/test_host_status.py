"""The status document, made of metrics and states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client.core import Metric
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.status import Daemon, Room, daemons_of, hops_of, latest, room_of, worst
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.states import State
from tests.statuses import ENCLAVE, GATEWAY, RELAY


def family(name: str, *rows: tuple[dict[str, Any], float], suffix: str = "") -> Metric:
    """A family with these samples."""
    made = Metric(name, "x", "gauge")
    for labels, value in rows:
        made.add_sample(name + suffix, labels, value)
    return made


class CountsTests(SynchronousTestCase):
    """What is read from metrics."""

    def hop(self, *more: Metric) -> Sequence[Metric]:
        counted = family("nitroproxy_connections", ({"hop": GATEWAY, "worker": "1"}, 5), suffix="_total")
        return [counted, *more]

    def test_hops(self) -> None:
        """A hop's processes are added up; a hop of which nobody told is missing, not zero."""
        requests = family(
            "nitroproxy_requests",
            ({"hop": GATEWAY, "worker": "1", "code": "2xx"}, 5),
            ({"hop": GATEWAY, "worker": "2", "code": "2xx"}, 6),
            ({"hop": GATEWAY, "worker": "2", "code": "5xx"}, 1),
            ({"hop": RELAY, "code": "5xx"}, 99),
            suffix="_total",
        )
        moved = family(
            "nitroproxy_bytes",
            ({"hop": GATEWAY, "worker": "1", "direction": "sent", "kind": "tunnel"}, 10),
            ({"hop": GATEWAY, "worker": "2", "direction": "sent", "kind": "request"}, 5),
            suffix="_total",
        )
        [hop] = hops_of(self.hop(requests, moved))
        self.assertEqual(
            (hop.name, hop.requests, hop.codes["2xx"], hop.codes["5xx"], hop.codes["3xx"]), (GATEWAY, 12, 11, 1, 0)
        )
        self.assertEqual((hop.sent, hop.received, hop.median), (15, 0, None))

    def test_daemons(self) -> None:
        """A daemon is up since the first of its processes; one that did not answer is not known."""
        families = [
            family("nitroproxy_up", ({"role": "host"}, 1), ({"role": "enclave"}, 0)),
            family("nitroproxy_build_info", ({"role": "host", "version": "1"}, 1)),
            family(
                "process_start_time_seconds",
                ({"role": "host", "worker": "1"}, 90),
                ({"role": "host", "worker": "2"}, 30),
            ),
            family(
                "nitroproxy_config_last_reload_successful",
                ({"role": "host", "worker": "1"}, 1),
                ({"role": "host", "worker": "2"}, 0),
            ),
        ]
        self.assertEqual(
            daemons_of(families),
            [Daemon("host", True, "1", 30, False, 0), Daemon("enclave", False, None, None, None, None)],
        )
        self.assertEqual([one.up for one in daemons_of([])], [False, False])

    def test_room(self) -> None:
        """The fullest process counts; what has no limit, or was not told, is left out."""
        families = [
            family(
                "nitroproxy_connections_open",
                ({"hop": GATEWAY, "worker": "1"}, 90),
                ({"hop": GATEWAY, "worker": "2"}, 5),
            ),
            family(
                "nitroproxy_connections_limit",
                ({"hop": GATEWAY, "worker": "1"}, 100),
                ({"hop": GATEWAY, "worker": "2"}, 100),
                ({"hop": ENCLAVE}, 100),
            ),
            family("process_open_fds", ({"role": "host", "worker": "supervisor"}, 5), ({"role": "enclave"}, 5)),
            family("process_max_fds", ({"role": "host", "worker": "supervisor"}, 50), ({"role": "enclave"}, 0)),
            family("nitroproxy_memory_bytes", ({"state": "total"}, 512), ({"state": "available"}, 400)),
        ]
        self.assertEqual(
            room_of(families),
            [
                Room("connections", GATEWAY, 90, 100),
                Room("descriptors", "host", 5, 50),
                Room("memory", "enclave", 112, 512),
            ],
        )
        self.assertEqual(room_of([]), [])


class WorstTests(SynchronousTestCase):
    """The status of the whole."""

    def test_order(self) -> None:
        """What fails is worse than what warns, and what is not known worse than what is well."""
        for statuses, expected in (
            ("pass pass", "pass"),
            ("pass unknown", "unknown"),
            ("unknown warn pass", "warn"),
            ("warn fail unknown", "fail"),
            ("", "unknown"),
        ):
            states = [State("x", status, "", 0.0) for status in statuses.split()]  # type: ignore[arg-type]
            self.assertEqual(worst(states), expected)


class LatestTests(SynchronousTestCase):
    """Failures from several places."""

    def test_sources(self) -> None:
        """What the enclave's log tells is preferred to the token that the gateway has of it, if the log tells."""
        ours = [
            Failure("enclave_unavailable", GATEWAY, "a:443", 1, 9.0, "1"),
            Failure("http_request_denied", ENCLAVE, "b:443", 1, 3.0, "2"),
        ]
        told = [Failure("destination_denied", ENCLAVE, "b:443", 1, 3.0, "2")]
        self.assertEqual(latest(ours, told, prefer_told=True), [told[0], ours[0]])
        self.assertEqual(latest(ours, [], prefer_told=False), [ours[1], ours[0]])

    def test_workers(self) -> None:
        """The same failure of several workers is one, with the newest time and id; the newest is first, and a dozen are
        told."""
        one = Failure("enclave_unavailable", GATEWAY, "a:443", 2, 9.0, "old")
        two = Failure("enclave_unavailable", GATEWAY, "a:443", 3, 4.0, "new")
        self.assertEqual(
            latest([one, two], [], prefer_told=True), [Failure("enclave_unavailable", GATEWAY, "a:443", 5, 4.0, "new")]
        )
        self.assertEqual(latest([two, one], [], prefer_told=True)[0].request_id, "new")
        many = [Failure("dns_error", RELAY, f"{n}:443", 1, float(n), "") for n in range(50)]
        self.assertEqual([one.seconds for one in latest([], many, prefer_told=True)], list(range(12)))
