"""nitro-cli, played by the stand-in."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.nitro_cli import NitroCLI, NitroError, Started, error_logs
from tests.images import image
from tests.nitrocli import FakeNitroCLI


class NitroCLITests(SynchronousTestCase):
    """Starting, looking, ending, and what goes wrong."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        self.fake = FakeNitroCLI(directory)
        self.cli = NitroCLI(self.fake.program)
        self.eif = directory.absolute() / "x.eif"
        self.eif.write_bytes(image())

    def start(self, cid: int = 20, memory_mib: int = 64, cpu_count: int = 2) -> Started:
        return self.cli.run(str(self.eif), cid=cid, cpu_count=cpu_count, memory_mib=memory_mib, debug=False)

    def error(self, **arguments: int) -> NitroError:
        error: NitroError = self.assertRaises(NitroError, self.start, **arguments)
        self.assertEqual(len(str(error).splitlines()), 1)
        return error

    def test_life(self) -> None:
        """An enclave is started as told, observed, and ended."""
        started = self.start()
        self.assertEqual(started.cid, 20)
        self.assertEqual(self.cli.state(started.enclave_id), "RUNNING")
        self.assertIsNone(self.cli.state("another"))
        self.cli.terminate(started.enclave_id)
        self.assertEqual(self.cli.enclaves(), [])
        self.assertRaises(NitroError, self.cli.terminate, started.enclave_id)

    def test_automatic(self) -> None:
        """With CID 0 each enclave gets one of its own, which the answer says."""
        self.assertEqual([self.start(cid=0).cid, self.start(cid=0).cid], [16, 17])
        self.assertIn("E29", str(self.error(cid=17)))

    def test_refused(self) -> None:
        """The status, the code and the content of the error log are passed on."""
        for arguments, status in (
            ({"cid": 3}, 3),
            ({"memory_mib": 63}, 26),
        ):
            error = self.error(**arguments)
            self.assertIn(f"run-enclave failed with status {status}: [ E{status:02} ] ", str(error))
            self.assertIn("  Action: Run Enclave", error.logs)
            self.assertIn(f"  The cause of E{status:02}", "\n".join(error.logs))
            self.assertTrue(error.logs[0].endswith(".log:"), error.logs)
        self.eif.unlink()
        self.assertIn("status 19: [ E19 ] File operation failure", str(self.error()))

    def test_pool(self) -> None:
        """What the allocator has not set aside, or another enclave has, is refused; CPUs may be named one by one."""
        self.fake.allocator.write_text("---\n# comment\nmemory_mib: 512\ncpu_pool: 1,3-5\n")
        self.assertIn("E27", str(self.error(memory_mib=513)))
        self.assertIn("E22", str(self.error(cpu_count=5)))
        self.start(memory_mib=448)
        self.assertIn("E27", str(self.error(cid=21, memory_mib=65)))

    def test_four(self) -> None:
        """An instance has at most four enclaves."""
        for _ in range(4):
            self.start(cid=0)
        self.assertIn("E29", str(self.error(cid=0)))

    def test_states(self) -> None:
        """The states are those of the script, and a failure to describe is one."""
        self.fake.behave(states=["EMPTY", "fails", "RUNNING", None])
        started = self.start()
        self.assertEqual(self.cli.state(started.enclave_id), "EMPTY")
        self.assertIn("status 38", str(self.assertRaises(NitroError, self.cli.state, started.enclave_id)))
        self.assertEqual([self.cli.state(started.enclave_id) for _ in range(3)], ["RUNNING", None, None])

    def test_strange_answers(self) -> None:
        """A nitro-cli that is missing, cannot be run or answers strangely is named."""
        self.assertIn("install", str(self.assertRaises(NitroError, NitroCLI("/nonexistent").enclaves)))
        error = self.assertRaises(NitroError, NitroCLI(str(self.eif)).enclaves)
        self.assertIn("x.eif cannot be run: Permission denied", str(error))
        for content, word in (("nonsense", "JSON"), ("[]", "which enclave"), ('{"EnclaveID": "x"}', "which enclave")):
            self.fake.behave(answer={"run-enclave": content})
            self.assertIn(word, str(self.error()))
        self.fake.behave(answer={"describe-enclaves": "{}"})
        self.assertIn("list", str(self.assertRaises(NitroError, self.cli.enclaves)))

    def test_bounds(self) -> None:
        """Neither words nor logs without end are passed on, and a log that cannot be read is named."""
        endless = self.eif.with_name("endless")
        endless.write_text(
            f"#!/bin/sh\nyes | head -c 100000 >&2\necho 'error log found at \"{self.eif}\"' >&2\nexit 7\n"
        )
        endless.chmod(0o755)
        self.eif.write_bytes(b"y\n" * 50_000)
        error: NitroError = self.assertRaises(NitroError, NitroCLI(str(endless)).enclaves)
        self.assertLess(len(str(error)), 5000)
        self.assertLess(sum(map(len, error.logs)), 20_000)
        said = 'error log found at "/nonexistent/a"\nerror log found at "/nonexistent/a"\nerror log found at /b\n'
        self.assertEqual(error_logs(said), [f"{name}: {os.strerror(2)}" for name in ("/nonexistent/a", "/b")])

    def test_images(self) -> None:
        """The stand-in builds and describes images by the project's own code; it empties the output before it fails."""
        answer = self.cli._ask(["build-enclave", "--docker-uri", "x:1", "--output-file", str(self.eif)], 60)
        described = self.cli._ask(["describe-eif", "--eif-path", str(self.eif)], 60)
        self.assertEqual(described["Measurements"], answer["Measurements"])
        self.assertRaises(
            NitroError, self.cli._ask, ["build-enclave", "--docker-uri", "missing", "--output-file", str(self.eif)], 60
        )
        self.assertEqual(self.eif.read_bytes(), b"")
        described = self.cli._ask(["describe-eif", "--eif-path", str(self.eif)], 60)
        self.assertEqual(described, {"CheckCRC": False})
