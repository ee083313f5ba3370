"""The enclave image under supervision; nitro-cli is played by the stand-in."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands import run_enclave
from nitroproxy.commands.main import main
from nitroproxy.commands.nitro_cli import NitroCLI, NitroError
from nitroproxy.commands.run_enclave import LOCK, Plan, check_image, supervise
from nitroproxy.config import load
from nitroproxy.config.ends import Enclave, Transport
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Limits
from nitroproxy.daemon.enclave_record import NAME, EnclaveRecord, read_record
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.image.layout import Kind
from tests.images import PARTS, image
from tests.nitrocli import FakeNitroCLI


class RecordingNotifier(Notifier):
    """A service manager that remembers, with the record of the enclave at that time, and may stop it then."""

    def __init__(self, directory: Path, stop: threading.Event) -> None:
        super().__init__({})
        self.messages: list[str] = []
        self.records: list[EnclaveRecord | None] = []
        self._directory = directory
        self._stop = stop

    def _send(self, *assignments: str) -> None:
        self.messages += assignments
        self.records.append(read_record(self._directory))
        self._stop.set()


class EnclaveTests(SynchronousTestCase):
    """An enclave that runs, one that does not start, one that dies."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.run_directory = self.directory / "run"
        self.fake = FakeNitroCLI(self.directory)
        self.eif = self.directory / "x.eif"
        self.eif.write_bytes(image())
        self.stop = threading.Event()
        self.notifier = RecordingNotifier(self.run_directory, self.stop)
        self.patch(run_enclave, "_INTERVAL", 0.01)
        self.patch(run_enclave, "_LOCK_INTERVAL", 0.01)

    def run_it(self, cid: int = 20, *, notifier: Notifier | None = None) -> None:
        settings = Settings(
            enclave=Enclave(cid=cid, memory_mb=1024, cpu_count=4),
            transport=Transport(directory=str(self.run_directory)),
        )
        plan = Plan(str(self.eif), "abcd", settings)
        supervise(NitroCLI(self.fake.program), plan, notifier or self.notifier, self.stop)

    def never_stopped(self) -> Notifier:
        return RecordingNotifier(self.run_directory, threading.Event())

    def test_runs(self) -> None:
        """It is started as configured, waited for until it runs, and terminated at the end."""
        self.fake.behave(states=["EMPTY", "RUNNING"])
        self.run_it()
        first, *looks, last = self.fake.calls
        self.assertEqual(first, f"run-enclave --eif-path {self.eif} --enclave-cid 20 --cpu-count 4 --memory 1024")
        self.assertEqual(set(looks), {"describe-enclaves"})
        self.assertEqual(last, "terminate-enclave --enclave-id i-1-enc1")
        self.assertEqual(self.notifier.messages[:2], ["READY=1", "STATUS=i-1-enc1 is running, CID 20"])

    def test_record(self) -> None:
        """While it runs the record has its CID, also one that was not asked for; before its end nothing has."""
        self.fake.behave(next_cid=33)
        self.run_it(cid=0)
        running, stopping = self.notifier.records
        assert running is not None
        self.assertEqual((running.cid, running.enclave_id), (33, "i-1-enc1"))
        self.assertEqual((running.image, running.pcr0), (str(self.eif), "abcd"))
        self.assertIsNone(stopping)
        self.assertEqual(self.notifier.messages[1], "STATUS=i-1-enc1 is running, CID 33")

    def test_command(self) -> None:
        """The command starts the image as the configuration says; what goes wrong is one line and status 1."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})
        self.patch(signal, "signal", lambda number, handler: None)
        self.fake.behave(states=["RUNNING", None])
        err = StringIO()
        self.patch(sys, "stderr", err)
        options = ["--eif", str(self.eif), "--nitro-cli", self.fake.program, "--debug-mode", "--set", "enclave.cid=21"]
        options += ["--set", f"transport.directory={self.run_directory}"]
        self.assertEqual(main(["run-enclave", *options]), 1)
        self.assertEqual(err.getvalue(), "nitroproxy: the enclave i-1-enc1 has ended; its state is unknown\n")
        self.assertEqual(
            self.fake.calls[0],
            f"run-enclave --eif-path {self.eif} --enclave-cid 21 --cpu-count 2 --memory 512 --debug-mode",
        )
        err.truncate(0)
        self.fake.behave(fail={"run-enclave": 27})
        self.assertEqual(main(["run-enclave", *options]), 1)
        first, *logs = err.getvalue().splitlines()
        self.assertIn("run-enclave failed with status 27: [ E27 ] Insufficient memory available", first)
        self.assertIn("nitroproxy:   Action: Run Enclave", logs)

    def test_does_not_start(self) -> None:
        """When nitro-cli fails nothing is left: neither an enclave to terminate nor a record."""
        self.run_directory.mkdir()
        EnclaveRecord(16, "i-1-gone", "/x.eif", "ab", 1.0).write(self.run_directory)
        self.fake.behave(fail={"run-enclave": 27})
        self.assertRaises(NitroError, self.run_it)
        self.assertEqual([call.split()[0] for call in self.fake.calls], ["describe-enclaves", "run-enclave"])
        self.assertIsNone(read_record(self.run_directory))

    def test_not_recorded(self) -> None:
        """An enclave that cannot be recorded is ended: nobody would serve it."""
        (self.run_directory / NAME).mkdir(parents=True)
        self.assertIn("cannot be removed", str(self.assertRaises(NitroError, self.run_it)))

        def refuse(record: EnclaveRecord, directory: Path) -> None:
            raise OSError(28, "No space left on device")

        (self.run_directory / NAME).rmdir()
        self.patch(EnclaveRecord, "write", refuse)
        self.assertIn("No space left", str(self.assertRaises(NitroError, self.run_it)))
        self.assertEqual(self.fake.enclaves, [])

    def test_still_runs(self) -> None:
        """An enclave that the directory's record names and that runs is left alone, and so is its record."""
        cli = NitroCLI(self.fake.program)
        other = cli.run(str(self.eif), cid=0, cpu_count=2, memory_mib=64, debug=False)
        self.run_directory.mkdir()
        record = EnclaveRecord(other.cid, other.enclave_id, "/x.eif", "ab", 1.0)
        record.write(self.run_directory)
        error = str(self.assertRaises(NitroError, self.run_it))
        self.assertIn("the enclave i-1-enc1 (CID 16) still runs; end it with `nitro-cli terminate-enclave", error)
        self.assertEqual(read_record(self.run_directory), record)
        self.assertEqual(len(self.fake.enclaves), 1)
        cli.terminate(other.enclave_id)
        self.run_it()

    def test_damaged_record(self) -> None:
        """A record that cannot be read is no reason not to start."""
        self.run_directory.mkdir()
        (self.run_directory / NAME).write_text("nonsense")
        self.run_it()
        self.assertEqual(self.notifier.messages[0], "READY=1")

    def test_one_starts_at_a_time(self) -> None:
        """nitro-cli cannot start two at a time: the second waits for the first, or for the end of its patience."""
        self.run_directory.mkdir()
        with (self.run_directory / LOCK).open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.patch(run_enclave, "_LOCK_TIMEOUT", 0.05)
            self.assertIn("starting for too long", str(self.assertRaises(NitroError, self.run_it)))
            self.assertEqual(self.fake.calls, [])
            self.patch(run_enclave, "_LOCK_TIMEOUT", 60.0)
            waits = self.stop.wait

            def wait(seconds: float | None = None) -> bool:
                fcntl.flock(other, fcntl.LOCK_UN)
                return waits(seconds)

            self.patch(self.stop, "wait", wait)
            self.run_it()
        self.assertEqual(self.notifier.messages[0], "READY=1")

    def test_stopped_while_waiting(self) -> None:
        """One that is stopped while another starts has nothing to end, and has not failed."""
        self.run_directory.mkdir()
        self.stop.set()
        with (self.run_directory / LOCK).open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.run_it()
        self.assertEqual(self.fake.calls, [])

    def test_port_conflict(self) -> None:
        """Without the lock the second of two that nitro-cli starts at a time fails, as with the original."""
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        self.fake.behave(wait=str(pipe))
        first = threading.Thread(target=self.run_it)
        first.start()
        with pipe.open("w"):  # The first has the port now.
            error = self.assertRaises(
                NitroError,
                NitroCLI(self.fake.program).run,
                str(self.eif),
                cid=0,
                cpu_count=2,
                memory_mib=64,
                debug=False,
            )
        first.join(60)
        self.assertIn("E36", str(error))
        self.assertEqual(self.notifier.messages[0], "READY=1")

    def test_failed_looks(self) -> None:
        """nitro-cli may fail to say how the enclave is a few times in a row; a healthy enclave does not end by it."""
        self.fake.behave(states=["fails"] * 4 + ["RUNNING"] + ["fails"] * 4 + ["RUNNING", None])
        error = self.assertRaises(NitroError, self.run_it, notifier=self.never_stopped())
        self.assertIn("i-1-enc1 has ended", str(error))
        self.assertEqual(self.fake.calls[1:], ["describe-enclaves"] * 11)

    def test_fails_for_good(self) -> None:
        """An enclave of which nothing can be learned any more is terminated, without asking once more."""
        self.fake.behave(states=["RUNNING", "fails"])
        error = self.assertRaises(NitroError, self.run_it, notifier=self.never_stopped())
        self.assertIn("[ E38 ]", str(error))
        self.assertEqual(self.fake.calls[1:], ["describe-enclaves"] * 6 + ["terminate-enclave --enclave-id i-1-enc1"])

    def test_dies(self) -> None:
        """An enclave that ends by itself ends the service with an error, and its record."""
        self.fake.behave(states=["RUNNING", "RUNNING", None])
        notifier = self.never_stopped()
        error = self.assertRaises(NitroError, self.run_it, notifier=notifier)
        self.assertIn("i-1-enc1 has ended", str(error))
        self.assertIsNone(read_record(self.run_directory))
        self.assertFalse([call for call in self.fake.calls if call.startswith("terminate")])


class ImageTests(SynchronousTestCase):
    """What is refused before nitro-cli is asked."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.err = StringIO()
        self.patch(sys, "stderr", self.err)

    def _check(self, memory: int = 64, connections: int = 1, *, any_kernel: bool = False) -> None:
        settings = Settings(enclave=Enclave(memory_mb=memory), limits=Limits(connections=connections))
        check_image(self.path, settings, any_kernel=any_kernel)

    def _refused(self, memory: int = 64) -> str:
        return str(self.assertRaises(NitroError, self._check, memory))

    def _write(self, boot: str, size: int = 0, unpacked: int | None = None) -> None:
        ours = {"boot": boot} | ({} if unpacked is None else {"root_bytes": unpacked})
        metadata = json.dumps({"CustomMetadata": {"nitroproxy": ours}}).encode()
        parts = [*PARTS[:2], (Kind.METADATA, metadata), *PARTS[3:], (Kind.RAMDISK, bytes(size))]
        self.path.write_bytes(image(parts))

    def test_damaged(self) -> None:
        """An image that is missing or damaged is named."""
        self.assertIn("No such file", self._refused())
        self.path.write_bytes(image()[:-1])
        self.assertIn("cut off", self._refused())

    def test_emulator(self) -> None:
        """The emulator's image is started only when that is asked for."""
        self._write("emulator")
        self.assertIn("--any-kernel", self._refused())
        self._check(any_kernel=True)
        self._write("nitro")
        self._check()

    def test_memory(self) -> None:
        """Less memory than 4 times the image is refused with the value to set."""
        self._write("nitro", 20 << 20)
        self.assertIn("set at least 81", self._refused(80))
        self._check(81)
        self.assertEqual(self.err.getvalue(), "")

    def test_memory_to_boot(self) -> None:
        """So is less than unpacking the root takes; both name what all rules together ask for."""
        self._write("nitro", 20 << 20, unpacked=100 << 20)
        self.assertIn("root of 104857600 bytes: the kernel ends with a panic; set at least 264", self._refused(263))
        self.assertIn("set at least 264", self._refused(80))
        self._check(264)

    def test_memory_to_run(self) -> None:
        """What may not be enough for all connections is a warning."""
        self._write("nitro", unpacked=71 << 20)
        self._check(359, 4000)
        self.assertEqual(self.err.getvalue(), "")
        self._check(358, 4000)
        self.assertIn("enclave.memory_mb: 358 is not enough for limits.connections (4000)", self.err.getvalue())
        self.assertIn("359 MiB or more", self.err.getvalue())
