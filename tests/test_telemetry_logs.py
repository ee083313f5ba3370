"""Where log events go."""

from __future__ import annotations

import io
import json

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.logs import log_observer


class LogTests(SynchronousTestCase):
    """The configured observer."""

    def lines(self, level: str, form: str) -> list[str]:
        output = io.StringIO()
        log = Logger("test", observer=log_observer(level, form, output))
        log.debug("a debug {word}", word="event")
        log.warn("a warning")
        return output.getvalue().splitlines()

    def test_level(self) -> None:
        """Events below the level are left out."""
        self.assertEqual(len(self.lines("DEBUG", "text")), 2)
        [line] = self.lines("WARN", "text")
        self.assertIn("a warning", line)
        self.assertEqual(self.lines("CRITICAL", "text"), [])

    def test_json(self) -> None:
        """A JSON line holds the event's fields."""
        event = json.loads(self.lines("DEBUG", "json")[0])
        self.assertEqual((event["word"], event["log_namespace"]), ("event", "test"))
