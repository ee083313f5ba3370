"""Why the enclave ended, in its own words."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.enclave_end import FORGET, WORDS, EnclaveEnd

WHEN = "at 2026-01-02T03:04:05.500Z the enclave said: "


class EnclaveEndTests(SynchronousTestCase):
    """Events of the enclave's log, and the questions of the health page."""

    def setUp(self) -> None:
        self.now = 1767323045.5
        self.end = EnclaveEnd(lambda: self.now)

    def ask(self, what: str, about: object = None) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(self.end.answerers[what](about)))

    def take(self, event: object, message: str = "m") -> None:
        self.end.take({"event": event, "message": message, "time": "2000-01-01T00:00:00.000Z"})

    def test_words(self) -> None:
        """The events with which an enclave ends are kept, the last one, with this machine's time; others are not."""
        self.assertEqual(self.ask(WORDS), "")
        self.take("enclave_did_not_start", "the enclave did not start: why")
        self.assertEqual(self.ask(WORDS), WHEN + "the enclave did not start: why")
        self.take("enclave_ended", "the enclave ended: because")
        for other in ("log", "daemon_ended", "application_output", "", "ENCLAVE_ENDED"):
            self.take(other, "forged")
        self.assertEqual(self.ask(WORDS), WHEN + "the enclave ended: because")

    def test_forgotten(self) -> None:
        """The words are forgotten when the enclave answers or says that its daemon is ready; not when it has ended
        again since they were read."""
        self.take("enclave_ended")
        read = self.ask(WORDS)
        self.now += 1
        self.take("enclave_ended")
        self.now += 20
        self.ask(FORGET, read)
        self.assertNotEqual(self.ask(WORDS), "")
        self.ask(FORGET, self.ask(WORDS))
        self.assertEqual(self.ask(WORDS), "")
        self.take("enclave_ended")
        self.take("daemon_ready")
        self.assertEqual(self.ask(WORDS), "")

    def test_last_moment(self) -> None:
        """An enclave that has said why it ends may answer for a moment more: that does not make its words forgotten."""
        self.take("enclave_ended")
        words = self.ask(WORDS)
        self.now += 10
        self.ask(FORGET, words)
        self.assertEqual(self.ask(WORDS), words)
        self.now += 10
        self.ask(FORGET, words)
        self.assertEqual(self.ask(WORDS), "")

    def test_hostile(self) -> None:
        """Whatever the enclave says is one printable line of bounded bytes, with its beginning and its end."""
        for filling in ("\n", "\x1b[2J", "\u202e", "\u2028", "\ud800", "\U000e0001", "é", "\U0001f600", "\\", "x"):
            self.take("enclave_did_not_start", "first " + filling * 16384 + " last")
            words = self.ask(WORDS)
            self.assertTrue(words.isprintable(), ascii(filling))
            self.assertLess(len(words.encode()), 560, ascii(filling))
            self.assertTrue(words.startswith(WHEN + "first ") and words.endswith(" last"), ascii(filling))
