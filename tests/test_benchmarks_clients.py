"""benchmarks.clients against benchmarks.raw, without a proxy between them; and the command line."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import clients
from benchmarks.cases import CASES
from benchmarks.chart import PANELS
from benchmarks.clients import Dialogue, Door, churn, hold, idle_tunnels, round_trips, transfer
from benchmarks.figures import Unmeasured
from benchmarks.main import main
from benchmarks.origin import start_raw
from benchmarks.processes import Crew, listens


class Clock:
    """Time that passes only while `select` waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.answers_at = 0.0

    def perf_counter(self) -> float:
        return self.now

    def select(self, reading: list[SlowPeer], _: object, __: object, pause: float) -> tuple[list[SlowPeer], None, None]:
        """Until the peer has answered, or the pause is over."""
        if reading and self.answers_at <= self.now + pause:
            self.now = self.answers_at
            return reading, None, None
        self.now += pause
        return [], None, None


class SlowPeer:
    """A connection whose peer takes half a second to answer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def sendall(self, data: bytes) -> None:
        self.clock.answers_at = self.clock.now + 0.5

    def recv(self, count: int) -> bytes:
        return b"x"


class RawTests(SynchronousTestCase):
    """Real sockets on loopback."""

    def setUp(self) -> None:
        self.crew = Crew(Path(self.mktemp()))
        self.addCleanup(self.crew.__exit__, None, None, None)
        self.door = Door(("127.0.0.1", start_raw(self.crew)))

    def test_bulk(self) -> None:
        """Every byte arrives, in both directions."""
        for direction in ("DOWN", "UP"):
            self.assertGreater(transfer(self.door, direction, 5 << 20, 2), 0)

    def test_churn(self) -> None:
        """Connections that echo a byte are counted, and all of them are closed at the end."""
        self.assertGreater(len(churn(self.door, 0.1, 4)), 4)

    def test_round_trips(self) -> None:
        """Messages come back."""
        self.assertGreater(len(round_trips(self.door, 0.1, 2, 64)), 2)

    def test_dialogue(self) -> None:
        """A message in two segments comes back complete, and the next one is sent only then."""
        answers: list[bytes] = []

        def whole(answer: bytes) -> bool:
            answers.append(answer)
            return len(answer) >= 6

        with self.door.enter() as connection:
            connection.sendall(b"ECHO\n")
            took = hold([connection], Dialogue((b"abc", b"def"), whole), 0.1)
        self.assertGreater(len(took), 2)
        self.assertEqual({answer for answer in answers if len(answer) >= 6}, {b"abcdef"})

    def test_steady_rate(self) -> None:
        """At a rate there are as many messages as it says, and those that have no connection to go out on have waited
        for one: their time counts from when they were due."""
        with self.door.enter() as one, self.door.enter() as other:
            for connection in (one, other):
                connection.sendall(b"ECHO\n")
            took = hold([one, other], Dialogue((b"x",), bool), 0.2, 200)
        self.assertIn(len(took), range(39, 42))
        silent = Clock()
        self.patch(clients, "time", silent)
        self.patch(clients, "select", silent)
        slow = hold([SlowPeer(silent)], Dialogue((b"x",), bool), 1, 4)  # type: ignore[list-item]
        self.assertEqual([round(seconds, 2) for seconds in slow], [0.5, 0.75, 1.0, 1.25])

    def test_two_segments(self) -> None:
        """A GET is answered in two segments, over TCP and the UNIX socket, one request after the other."""
        path = Path(tempfile.mkdtemp()) / "raw.sock"
        self.addCleanup(shutil.rmtree, path.parent)
        crew = Crew(Path(self.mktemp()))
        self.addCleanup(crew.__exit__, None, None, None)
        start_raw(crew, path)
        with Door(str(path)).enter() as client:
            for _ in range(2):
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                answer = b""
                while len(answer) < 1024 or not answer.endswith(b"k" * 1024):
                    answer += client.recv(65536)
                self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 1)

    def test_idle(self) -> None:
        """Tunnels are held as long as the block lasts, and no longer."""
        before = len(os.listdir("/proc/self/fd"))
        with idle_tunnels(self.door, 3):
            self.assertEqual(len(os.listdir("/proc/self/fd")), before + 3)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_refused(self) -> None:
        """A door to a server that does not know CONNECT gives a reason, not a figure."""
        with self.assertRaisesRegex(Unmeasured, "ended before a byte had come back"):
            churn(Door(self.door.address, "example.org:443"), 0.1, 1)


class CrewTests(SynchronousTestCase):
    """Programs in the background."""

    def test_not_installed(self) -> None:
        """A program that is not installed gives a reason, not a traceback."""
        with Crew(Path(self.mktemp())) as crew, self.assertRaisesRegex(Unmeasured, "nonsense is not installed"):
            crew.launch("x", ["nonsense"])

    def test_dies(self) -> None:
        """A program that ends at once: the error has the last line of its log."""
        command = [sys.executable, "-c", "raise SystemExit('no such file')"]
        with Crew(Path(self.mktemp())) as crew, self.assertRaisesRegex(Unmeasured, "ended with 1: no such file"):
            crew.launch("x", command, "/nonexistent")

    def test_all_end(self) -> None:
        """Leaving the block ends what was started in it."""
        with Crew(Path(self.mktemp())) as crew:
            port = start_raw(crew)
            self.assertTrue(listens(("127.0.0.1", port)))
        self.assertFalse(listens(("127.0.0.1", port)))


class CommandTests(SynchronousTestCase):
    """`python -m benchmarks`."""

    def test_unknown_case(self) -> None:
        """An unknown case exits with 2 and lists the known ones."""
        words = StringIO()
        with redirect_stderr(words), self.assertRaises(SystemExit) as ended:
            main(["nonsense"])
        self.assertEqual(ended.exception.code, 2)
        self.assertIn("'nonsense'", words.getvalue())
        self.assertIn("relay-down", words.getvalue())

    def test_drawn_cases_exist(self) -> None:
        """The chart draws existing cases only."""
        self.assertTrue(set(PANELS) <= set(CASES))
