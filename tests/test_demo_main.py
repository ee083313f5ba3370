"""Whole runs of the demonstration: the exit status, the console and the files that it writes."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.demo import main as main_module
from nitroproxy.demo.main import demonstrate, run
from nitroproxy.demo.report_text import Console
from tests.test_commands_demo import parse
from tests.test_demo_cases import TARGET, FakeGateway, reactor, serve

_CLOSED_PORT: Final = "http://127.0.0.1:1"


class DemonstrateTests(TestCase):
    """Whole runs against a fake gateway."""

    def setUp(self) -> None:
        """Somewhere to write."""
        self.output = io.StringIO()
        self.errors = io.StringIO()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    async def demonstrate(self, *argv: str) -> int:
        """The exit status of a run with *argv*."""
        with contextlib.redirect_stderr(self.errors):
            return await demonstrate(reactor, parse(argv), Console(self.output, interactive=False))

    async def test_a_good_run_writes_all_reports_and_succeeds(self) -> None:
        """A run that passes ends with 0 and all three files agree on its cases."""
        files = [self.directory / name for name in ("r.json", "r.xml", "r.html")]
        chosen = ("--only", "get", "--only", "redirect", "--only", "denied_port")
        reports = ("--json", str(files[0]), "--junit", str(files[1]), "--html", str(files[2]))
        status = await self.demonstrate("--proxy", serve(self, FakeGateway()), "--target", TARGET, *chosen, *reports)
        self.assertEqual(status, 0, self.output.getvalue())
        names = ["get", "redirect", "denied_port"]
        self.assertEqual([case["name"] for case in json.loads(files[0].read_text())["cases"]], names)
        self.assertEqual([case.get("name") for case in ElementTree.fromstring(files[1].read_bytes())[0]], names)
        self.assertTrue(all(f"<b>{name}</b>" in files[2].read_text() for name in names))
        self.assertIn("3 passed", self.output.getvalue())

    async def test_the_canary_that_was_sent_is_in_the_json(self) -> None:
        """The canary in the JSON is the one that went out, so that a capture can be searched for it."""
        fake, path = FakeGateway(), self.directory / "r.json"
        await self.demonstrate("--proxy", serve(self, fake), "--target", TARGET, "--only", "get", "--json", str(path))
        canary = json.loads(path.read_text())["canary"]
        self.assertEqual(fake.requests, [f"{TARGET}/get?canary={canary}"])

    async def test_a_failed_case_fails_the_run(self) -> None:
        """One failed case gives status 1, and the others are still tried."""
        proxy = serve(self, FakeGateway("redirects are followed"))
        status = await self.demonstrate(
            "--proxy", proxy, "--target", TARGET, "--only", "redirect", "--only", "denied_port"
        )
        self.assertEqual(status, 1)
        self.assertIn("1 passed, 1 failed", self.output.getvalue())

    async def test_a_dead_target_is_one_line(self) -> None:
        """Where the target cannot be reached, the cases that need it are one row with the reason, not one each; the
        others are tried. Programs still see every case."""
        path = self.directory / "r.json"
        fake = FakeGateway("the target is dead")
        status = await self.demonstrate("--proxy", serve(self, fake), "--target", TARGET, "--json", str(path))
        self.assertEqual(status, 1)
        shown = self.output.getvalue()
        self.assertEqual(shown.count("dns_error"), 1)
        self.assertIn("the target cannot be reached: 502 dns_error: no such name", shown)
        self.assertRegex(shown, r"(?m)^post_json … streaming +skipped .* not tried, as the target cannot be reached$")
        self.assertRegex(shown, r"(?m)^denied_plaintext +passed")
        self.assertNotIn("concurrent requests:", shown)
        self.assertEqual(len(json.loads(path.read_text())["cases"]), 20)
        self.assertEqual(len([url for url in fake.requests if url.startswith(TARGET)]), 1)

    async def test_a_dead_enclave_is_one_line(self) -> None:
        """Where the enclave cannot be reached, no case can pass, and only one is tried."""
        fake = FakeGateway("the enclave is dead")
        self.assertEqual(await self.demonstrate("--proxy", serve(self, fake), "--target", TARGET), 1)
        self.assertIn("the enclave cannot be reached: 503 enclave_unavailable: not there", self.output.getvalue())
        self.assertEqual(len(fake.requests), 1)

    async def test_a_proxy_that_is_not_there_is_one_line(self) -> None:
        """Without a proxy there is one line that says so, no case is tried and the status is 1."""
        self.assertEqual(await self.demonstrate("--proxy", _CLOSED_PORT), 1)
        [line] = self.errors.getvalue().splitlines()
        self.assertIn(f"cannot reach the proxy at {_CLOSED_PORT}: ", line)
        self.assertEqual(self.output.getvalue(), "")

    async def test_a_report_that_cannot_be_written_is_one_line(self) -> None:
        """A file that cannot be written gives one line and status 1, after the report on the console."""
        path = self.directory / "taken"
        path.mkdir()
        status = await self.demonstrate(
            "--proxy", serve(self, FakeGateway()), "--target", TARGET, "--only", "get", "--json", str(path)
        )
        self.assertEqual((status, len(self.errors.getvalue().splitlines())), (1, 1))
        self.assertIn("1 passed", self.output.getvalue())


class RunTests(SynchronousTestCase):
    """The run as a command, without the global reactor."""

    def test_closed_pipe(self) -> None:
        """When the reader of the output has gone, the command's end is its caller's to decide, without a traceback."""

        async def broken(*arguments: object) -> int:
            raise BrokenPipeError

        def react(main: Callable[[object], Coroutine[Any, Any, None]]) -> None:
            self.successResultOf(Deferred.fromCoroutine(main(None)))
            raise SystemExit(0)

        self.patch(main_module, "demonstrate", broken)
        self.patch(task, "react", react)
        self.assertRaises(BrokenPipeError, run, parse(["--target", TARGET]))
