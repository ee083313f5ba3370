"""The enclave image and nitro-cli, played by a script."""

from __future__ import annotations

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
from nitroproxy.commands.run_enclave import NitroCLI, NitroError, check_image, supervise
from nitroproxy.config import load
from nitroproxy.config.schema import Enclave
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.image.layout import Kind
from tests.images import PARTS, image

#: Notes its arguments; describe-enclaves gives the next line of states each time.
SCRIPT = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> calls
case $1 in
    run-enclave) [ -f broken ] && { echo "Start allocating memory..." >&2; cat broken >&2; exit 1; }; cat started ;;
    describe-enclaves) case $(head -n 1 states) in fails) sed -i 1d states; echo "[ E11 ]" >&2; exit 1 ;; esac
        head -n 1 states; [ "$(wc -l < states)" -gt 1 ] && sed -i 1d states ;;
    terminate-enclave) echo "[]" > states; echo '{"Terminated": true}' ;;
esac
true
"""

#: A line of states.
RUNNING = json.dumps([{"EnclaveID": "i-1-enc1", "State": "RUNNING"}])


class RecordingNotifier(Notifier):
    """A service manager that remembers, and may do something then."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__({})
        self.messages: list[str] = []
        self._stop = stop

    def _send(self, *assignments: str) -> None:
        self.messages += assignments
        self._stop.set()


class EnclaveTests(SynchronousTestCase):
    """An enclave that runs, one that does not start, one that dies."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        program = self.directory / "nitro-cli"
        program.write_text(SCRIPT)
        program.chmod(0o755)
        (self.directory / "started").write_text(json.dumps({"EnclaveID": "i-1-enc1", "EnclaveCID": 20}))
        self.cli = NitroCLI(str(program))
        self.stop = threading.Event()
        self.notifier = RecordingNotifier(self.stop)
        self.patch(run_enclave, "_INTERVAL", 0.01)

    def states(self, *states: str | None) -> None:
        lines = [json.dumps([{"EnclaveID": "i-1-enc1", "State": state}] if state else []) for state in states]
        (self.directory / "states").write_text("\n".join(lines) + "\n")

    def run_it(self) -> None:
        settings = Enclave(cid=20, memory_mb=1024, cpu_count=4)
        supervise(self.cli, settings, "/x.eif", debug=False, notifier=self.notifier, stop=self.stop)

    def calls(self) -> list[str]:
        return (self.directory / "calls").read_text().splitlines()

    def test_runs(self) -> None:
        """It is started as configured, waited for until it runs, and terminated at the end."""
        self.states("EMPTY", "RUNNING")
        self.run_it()
        first, *looks, last = self.calls()
        self.assertEqual(first, "run-enclave --eif-path /x.eif --enclave-cid 20 --cpu-count 4 --memory 1024")
        self.assertEqual(set(looks), {"describe-enclaves"})
        self.assertEqual(last, "terminate-enclave --enclave-id i-1-enc1")
        self.assertEqual(self.notifier.messages[:2], ["READY=1", "STATUS=i-1-enc1 is running, CID 20"])

    def test_command(self) -> None:
        """The command starts the image as the configuration says; what goes wrong is one line and status 1."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})
        self.patch(signal, "signal", lambda number, handler: None)
        self.states("RUNNING", None)
        err = StringIO()
        self.patch(sys, "stderr", err)
        self.patch(run_enclave, "check_image", lambda eif, memory_mib, *, any_kernel: None)
        options = ["--eif", "/y.eif", "--nitro-cli", self.cli.program, "--debug-mode", "--set", "enclave.cid=21"]
        self.assertEqual(main(["run-enclave", *options]), 1)
        self.assertIn("nitroproxy: the enclave i-1-enc1 has ended", err.getvalue())
        self.assertEqual(
            self.calls()[0],
            "run-enclave --eif-path /y.eif --enclave-cid 21 --cpu-count 2 --memory 512 --debug-mode",
        )

    def test_does_not_start(self) -> None:
        """nitro-cli's own words say why; nothing is left to terminate."""
        (self.directory / "broken").write_text(
            "[ E27 ] Insufficient memory available.\n\nFor more details, please visit x#E27\n"
            "If you open a support ticket, please provide the error log found at /var/log/nitro_enclaves/err.log\n"
            "[ E39 ] Enclave process connection failure.\n\nFor more details, please visit x#E39\n"
        )
        error = str(self.assertRaises(NitroError, self.run_it))
        self.assertIn("run-enclave failed: Start allocating memory... [ E27 ] Insufficient memory available.", error)
        self.assertIn("[ E39 ] Enclave process", error)
        self.assertEqual(len(error.splitlines()), 1)
        self.assertEqual(len(self.calls()), 1)
        (self.directory / "broken").write_text("x" * 100_000)
        self.assertLess(len(str(self.assertRaises(NitroError, self.run_it))), 5000)

    def test_failed_looks(self) -> None:
        """nitro-cli may fail to say how the enclave is a few times in a row; a healthy enclave does not end by it."""
        lines = ["fails"] * 4 + [RUNNING] + ["fails"] * 4 + [RUNNING, "[]"]
        (self.directory / "states").write_text("\n".join(lines) + "\n")
        self.notifier = RecordingNotifier(threading.Event())
        self.assertIn("i-1-enc1 has ended", str(self.assertRaises(NitroError, self.run_it)))
        self.assertEqual(self.calls()[1:], ["describe-enclaves"] * 11)

    def test_fails_for_good(self) -> None:
        """An enclave of which nothing can be learned any more is terminated, without asking once more."""
        (self.directory / "states").write_text(RUNNING + "\n" + "fails\n" * 20)
        self.notifier = RecordingNotifier(threading.Event())
        self.assertIn("[ E11 ]", str(self.assertRaises(NitroError, self.run_it)))
        self.assertEqual(self.calls()[1:], ["describe-enclaves"] * 6 + ["terminate-enclave --enclave-id i-1-enc1"])

    def test_dies(self) -> None:
        """An enclave that ends by itself ends the service with an error."""
        self.states("RUNNING", "RUNNING", None)
        notifier, self.notifier = self.notifier, RecordingNotifier(threading.Event())
        error = self.assertRaises(NitroError, self.run_it)
        self.assertIn("i-1-enc1 has ended", str(error))
        self.assertIn("READY=1", self.notifier.messages)
        self.assertEqual(notifier.messages, [])

    def test_strange_answers(self) -> None:
        """A nitro-cli that is missing, cannot be run or answers strangely is named."""
        self.assertIn("install", str(self.assertRaises(NitroError, NitroCLI("/nonexistent").state, "x")))
        error = self.assertRaises(NitroError, NitroCLI(str(self.directory / "started")).state, "x")
        self.assertIn("started cannot be run: Permission denied", str(error))
        for content, word in (("nonsense", "JSON"), ("[]", "which enclave"), ("{}", "which enclave")):
            (self.directory / "started").write_text(content)
            self.assertIn(word, str(self.assertRaises(NitroError, self.run_it)))
        self.states()
        (self.directory / "states").write_text("{}\n")
        self.assertIn("list", str(self.assertRaises(NitroError, self.cli.state, "x")))


class ImageTests(SynchronousTestCase):
    """What is refused before nitro-cli is asked."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def _refused(self, memory: int = 64, *, any_kernel: bool = False) -> str:
        return str(self.assertRaises(NitroError, check_image, self.path, memory, any_kernel=any_kernel))

    def _write(self, boot: str, size: int = 0) -> None:
        metadata = json.dumps({"CustomMetadata": {"nitroproxy": {"boot": boot}}}).encode()
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
        check_image(self.path, 64, any_kernel=True)
        self._write("nitro")
        check_image(self.path, 64, any_kernel=False)

    def test_memory(self) -> None:
        """Less memory than 4 times the image is refused with the value to set."""
        self._write("nitro", 20 << 20)
        self.assertIn("set at least 81", self._refused(80))
        check_image(self.path, 81, any_kernel=False)
