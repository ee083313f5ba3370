"""The file that says which enclave runs: written by run-enclave, read by the host daemon."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.enclave_record import NAME, EnclaveRecord, RunningEnclave, read_record, remove_record

RECORD = EnclaveRecord(cid=17, enclave_id="i-1-enc1", image="/x.eif", pcr0="ab", started=1700000000.5)


class RecordTests(SynchronousTestCase):
    """One record."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / NAME

    def put(self, **changes: Any) -> None:
        good = {"cid": 17, "enclave_id": "i-1-enc1", "image": "/x.eif", "pcr0": "ab", "started": 1}
        self.path.write_text(json.dumps({**good, **changes}))

    def test_round_trip(self) -> None:
        """What is written is read; the daemon, another user, may read it whatever the umask; nothing else is left."""
        self.assertIsNone(read_record(self.directory))
        before = os.umask(0o077)
        try:
            RECORD.write(self.directory)
        finally:
            os.umask(before)
        self.assertEqual(read_record(self.directory), RECORD)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertEqual([path.name for path in self.directory.iterdir()], [NAME])
        remove_record(self.directory)
        remove_record(self.directory)
        self.assertIsNone(read_record(self.directory))

    def test_not_written(self) -> None:
        """A record that cannot be put in place leaves no temporary file."""
        self.path.mkdir()
        self.assertRaises(OSError, RECORD.write, self.directory)
        self.assertEqual([path.name for path in self.directory.iterdir()], [NAME])

    def test_nonsense(self) -> None:
        """What is no record is refused: other CIDs above all, as true, which Python takes for 1."""
        unlike: list[dict[str, Any]] = [
            *({"cid": cid} for cid in (0, 1, 2, 3, -1, 4294967295, 1 << 40, True, "16", 16.0, None)),
            *({"started": started} for started in (None, "x", True)),
            {"enclave_id": 7},
            {"image": None},
        ]
        for changes in unlike:
            self.put(**changes)
            self.assertRaises(ValueError, read_record, self.directory)
        for content in (b"", b"[]", b"\xff", b"{", b"[" * 4096, b" " * 5000 + b"{}"):
            self.path.write_bytes(content)
            self.assertRaises(ValueError, read_record, self.directory)

    def test_no_file(self) -> None:
        """A pipe, of which reading would wait, a link and a directory are refused."""
        os.mkfifo(self.path)
        self.assertRaises(ValueError, read_record, self.directory)
        self.path.unlink()
        self.path.symlink_to("/etc/hostname")
        self.assertRaises(OSError, read_record, self.directory)
        self.path.unlink()
        self.path.mkdir()
        self.assertRaises((OSError, ValueError), read_record, self.directory)


class RunningEnclaveTests(SynchronousTestCase):
    """The CID as the host daemon learns it."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.running = RunningEnclave(self.directory)

    def test_changes(self) -> None:
        """No enclave, one, another, none: each at the next question; the problem says what to look at."""
        self.assertIsNone(self.running())
        self.assertIn(f"enclave.cid is 0 and {self.directory / NAME} cannot be read", self.running.problem)
        self.assertIn("nitroproxy-eif.service", self.running.problem)
        self.directory.mkdir()
        self.assertIsNone(self.running())
        RECORD.write(self.directory)
        self.assertEqual((self.running(), self.running.problem), (17, ""))
        EnclaveRecord(18, "i-1-enc2", "/x.eif", "ab", 1.0).write(self.directory)
        self.assertEqual(self.running(), 18)
        (self.directory / NAME).write_text("{}")
        self.assertIsNone(self.running())
        self.assertIn("cannot be used", self.running.problem)
        remove_record(self.directory)
        self.assertIsNone(self.running())
        self.assertIn("cannot be read", self.running.problem)
        RECORD.write(self.directory)
        self.assertEqual(self.running(), 17)

    def test_read_once(self) -> None:
        """It is asked for each connection: the file is read only when it is another."""
        self.directory.mkdir()
        RECORD.write(self.directory)
        reads: list[None] = []
        read = self.running._read

        def count() -> None:
            reads.append(None)
            read()

        self.patch(self.running, "_read", count)
        self.assertEqual([self.running() for _ in range(3)], [17] * 3)
        self.assertEqual(len(reads), 1)

    def test_not_to_be_read(self) -> None:
        """A directory that cannot be searched, or a nesting that cannot be parsed, is no enclave and no exception."""
        self.directory.write_text("not a directory")
        self.assertIsNone(self.running())
        self.assertIn("Not a directory", self.running.problem)
        self.directory.unlink()
        self.directory.mkdir()
        (self.directory / NAME).write_text("[" * 4000)
        self.assertIsNone(self.running())
