"""Since when each layer is as it is."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.states import LAYERS, State, States


class StatesTests(SynchronousTestCase):
    """Examinations, on a clock that the test advances."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.states = States(self.clock.seconds)

    def note(self, **statuses: str) -> None:
        checks = {layer: Check(status, f"{layer} {status}") for layer, status in statuses.items()}  # type: ignore[arg-type]
        self.states.note(checks)

    def state(self, layer: str) -> State:
        [found] = [state for state in self.states.tell() if state.layer == layer]
        return found

    def gauge(self) -> dict[str, str]:
        """The status of each layer by the gauge."""
        [family] = self.states.collect()
        ones = [sample.labels for sample in family.samples if sample.value]
        self.assertEqual(len(family.samples), 4 * len(ones), "four series a layer, one of which is 1")
        return {labels["layer"]: labels["status"] for labels in ones}

    def test_nothing_yet(self) -> None:
        """Before the first examination nothing is known, and nothing is said."""
        self.assertEqual(self.states.tell(), [])
        self.assertEqual(self.gauge(), {})

    def test_since(self) -> None:
        """A state lasts as long as its status, whatever the output; after a change the former is remembered."""
        self.note(host="pass", vsock="pass")
        self.clock.advance(60)
        self.note(host="pass", vsock="fail")
        self.clock.advance(8)
        self.states.note({"host": Check("pass"), "vsock": Check("fail", "another reason")})
        self.assertEqual(self.state("host").seconds, 68)
        self.assertEqual(self.state("vsock"), State("vsock", "fail", "another reason", 8, "pass", 60))
        self.note(host="pass", vsock="pass")
        self.assertEqual(self.state("vsock"), State("vsock", "pass", "vsock pass", 0, "fail", 8))

    def test_unknown(self) -> None:
        """What could not be examined is unknown: a layer of every stack from the start, another once it was seen."""
        self.note(host="pass", workers="warn")
        self.assertEqual([state.layer for state in self.states.tell()], [*LAYERS, "workers"])
        self.assertEqual(self.state("policy").status, "unknown")
        self.clock.advance(5)
        self.note(host="pass")
        self.assertEqual(self.state("workers"), State("workers", "unknown", "", 0, "warn", 5))

    def test_gauge(self) -> None:
        """One series of each layer is 1."""
        self.note(host="pass", policy="warn", vsock="fail")
        gauge = self.gauge()
        self.assertEqual((gauge["host"], gauge["policy"], gauge["vsock"]), ("pass", "warn", "fail"))
        self.assertEqual(gauge["dns"], "unknown")
