"""Log lines leave without blocking the daemon (F12)."""

from __future__ import annotations

import os
import re
import threading

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.sink import LINE_OVERHEAD, LogSink, size_of


class SinkTests(SynchronousTestCase):
    """A pipe whose reader may or may not read."""

    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.sink = LogSink(self.writer, lambda count: b"dropped %d\n" % count, most=65536)

    def tearDown(self) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def test_order(self) -> None:
        """Lines come out whole and in order."""
        lines = [b"line %d\n" % i for i in range(100)]
        for line in lines:
            self.sink.write(line)
        self.assertTrue(self.sink.flush(5))
        self.assertEqual(os.read(self.reader, 65536), b"".join(lines))
        self.assertEqual(self.sink.dropped, 0)

    def test_pieces(self) -> None:
        """Lines are written in pieces that a pipe takes whole, so that other processes' lines do not come in between;
        only a longer line is a longer piece."""
        pieces: list[bytes] = []

        def write(descriptor: int, data: bytes) -> int:
            pieces.append(bytes(data))
            return len(data)

        self.patch(os, "write", write)
        lines = [b"%d" % i * size + b"\n" for i, size in enumerate((100, 3000, 996, 1, 9000, 2, 4095, 4095))]
        for line in lines:
            self.sink.write(line)
        self.assertTrue(self.sink.flush(5))
        self.assertEqual(b"".join(pieces), b"".join(lines))
        self.assertTrue(all(piece.endswith(b"\n") for piece in pieces))
        self.assertTrue(all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in pieces))
        self.assertLess(len(pieces), len(lines))

    def test_blocked(self) -> None:
        """With a reader that does not read, writing goes on, lines are dropped and counted, and flushing gives up; when
        it reads again a line says how many it missed."""
        for _ in range(50):
            self.sink.write(b"x" * 9999 + b"\n")
            self.sink.flush(0.01)  # Until the pipe holds no more.
        for _ in range(20):
            self.sink.write(b"y" * 9999 + b"\n")
        self.assertGreater(self.sink.dropped, 0)
        self.assertFalse(self.sink.flush(0.1))
        found: list[bytes] = []

        def read() -> None:
            while data := os.read(self.reader, 65536):
                found.append(data)

        def told() -> int:
            return sum(int(count) for count in re.findall(rb"dropped (\d+)\n", b"".join(found)))

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        for _ in range(200):
            self.sink.write(b"z\n")  # With the next line comes the notice of those missed since the one before.
            if self.sink.flush(0.1) and told() == self.sink.dropped:
                break
        self.assertEqual(told(), self.sink.dropped)
        writer, self.writer = self.writer, os.open(os.devnull, os.O_WRONLY)
        os.close(writer)
        reading.join(20)

    def test_bounded_in_bytes(self) -> None:
        """What waits and what is being written together take no more bytes than may wait, whether lines are long or
        empty (K4)."""
        for line in (b"x" * 5000 + b"\n", b"\n"):
            sink = LogSink(self.writer, lambda count: b"", most=20_000)
            self.patch(sink, "_start", lambda: None)  # Nothing is written.
            for _ in range(1000):
                sink.write(line)
            fit = 20_000 // size_of(line)
            self.assertEqual(sink.dropped, 1000 - fit)
            self.assertGreaterEqual(size_of(line), len(line) + LINE_OVERHEAD)

    def test_place_after_writing(self) -> None:
        """A line that has been written makes place for another."""
        size = size_of(b"x" * 30_000)
        for _ in range(4):
            self.sink.write(b"x" * 29_999 + b"\n")
            self.sink.write(b"x" * 29_999 + b"\n")
            self.assertTrue(self.sink.flush(5))
            os.read(self.reader, 65536)
        self.assertEqual(self.sink.dropped, 0)
        self.assertLess(65536, 3 * size, "there is place for two lines only")

    def test_reader_gone(self) -> None:
        """A reader that has gone is no error; the lines are counted, and reported to the next reader."""
        os.close(self.reader)
        for _ in range(3):
            self.sink.write(b"x\n")
        self.assertTrue(self.sink.flush(5))
        self.assertEqual(self.sink.dropped, 3)
        self.sink.write(b"with a notice of the three\n")
        self.assertTrue(self.sink.flush(5))
        self.assertEqual(self.sink.dropped, 4, "the notice is not counted")
        self.reader, writer = os.pipe()
        os.dup2(writer, self.writer)
        os.close(writer)
        self.sink.write(b"y\n")
        self.assertTrue(self.sink.flush(5))
        self.assertEqual(os.read(self.reader, 100), b"y\ndropped 4\n")

    def test_no_space(self) -> None:
        """A file system that is full loses lines, and they are counted."""
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        sink = LogSink(full, lambda count: b"dropped %d\n" % count)
        sink.write(b"x\n" * 3)
        sink.write(b"y\n")
        self.assertTrue(sink.flush(5))
        self.assertEqual(sink.dropped, 2, "an event of several lines is one")

    def test_after_a_fork(self) -> None:
        """A daemon that has gone to the background writes there too: threads do not survive a fork."""
        self.sink.write(b"before\n")
        self.sink.flush(5)
        child = os.fork()
        if not child:
            self.sink.write(b"after\n")
            self.sink.flush(5)
            os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(os.read(self.reader, 65536), b"before\nafter\n")
