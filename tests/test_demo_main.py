"""The demonstration's command line: its options, its exit status and the files it writes."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.demo.main import demonstrate, parse
from nitroproxy.demo.report_text import Console
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, read_upstream_file, write_upstream_file
from tests.test_demo_cases import CASES, LOCAL, TARGET, FakeGateway, reactor, serve

_CLOSED_PORT: Final = "http://127.0.0.1:1"


class ParseTests(SynchronousTestCase):
    """The options."""

    def refused(self, *argv: str) -> str:
        """What is written to stderr when *argv* is bad usage."""
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            stop = self.assertRaises(SystemExit, parse, argv)
        self.assertEqual(stop.code, 2)
        return stderr.getvalue()

    def test_the_defaults_are_a_local_gateway_and_httpbin(self) -> None:
        """Without options all cases are tried on httpbin.org through the gateway's default address."""
        options = parse([])
        self.assertEqual((options.proxy, options.setting.target), ("http://127.0.0.1:8080", "https://httpbin.org"))
        self.assertEqual([case.name for case in options.cases], list(CASES))
        self.assertEqual((options.setting.upstream, options.setting.refused_urls, options.files), (None, {}, {}))

    def test_bad_usage_is_refused(self) -> None:
        """What cannot be meant ends with status 2 and says what was wrong."""
        for argv, word in (
            (["--proxy", "https://127.0.0.1:8080"], "http://host"),
            (["--proxy", "http://"], "http://host"),
            (["--proxy", "http://127.0.0.1:99999"], "http://host"),
            (["--target", "httpbin.org"], "https://host"),
            (["--target", "https://httpbin.org/?x=1"], "https://host"),
            (["--timeout", "0"], "seconds"),
            (["--timeout", "nan"], "seconds"),
            (["--timeout", "soon"], "seconds"),
            (["--only", "nothing"], "invalid choice"),
            (["--refusals", "odd=https://a.test"], "'odd' is not one of"),
            (["--refusals", "expired=http://a.test"], "https://host"),
            (["--upstream", "/nonexistent/upstream.json"], "--upstream"),
            (["--json", "/nonexistent/report.json"], "no directory"),
            (["surplus"], "surplus"),
        ):
            self.assertIn(word, self.refused(*argv), argv)

    def test_only_keeps_the_order_of_the_table(self) -> None:
        """--only can be given more than once and does not change the order."""
        self.assertEqual([case.name for case in parse(["--only", "head", "--only", "get"]).cases], ["get", "head"])

    def test_each_run_has_a_canary_of_its_own(self) -> None:
        """Two runs never share a canary."""
        self.assertNotEqual(parse([]).setting.canary, parse([]).setting.canary)

    def test_the_list_names_every_case(self) -> None:
        """--list prints each case and ends with status 0."""
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            self.assertFalse(self.assertRaises(SystemExit, parse, ["--list"]).code)
        self.assertEqual([line.split()[0] for line in stdout.getvalue().splitlines()], list(CASES))

    def test_the_local_upstream_brings_its_targets(self) -> None:
        """--upstream takes the target and all bad servers from the file, and allows no others beside them."""
        path = Path(self.mktemp())
        write_upstream_file(path, LOCAL)
        setting = parse(["--upstream", str(path)]).setting
        self.assertEqual((setting.upstream, setting.target), (LOCAL, "https://localhost:1"))
        self.assertEqual(setting.refused_urls, {name: LOCAL.url(name) for name in BAD_CERTIFICATES})
        self.assertIn("leave out", self.refused("--upstream", str(path), "--target", TARGET))

    def test_bad_servers_of_a_deployment_are_options(self) -> None:
        """--refusals names a server that must be refused."""
        setting = parse(["--refusals", "expired=https://expired.badssl.test/"]).setting
        self.assertEqual(setting.refused_urls, {"expired": "https://expired.badssl.test"})


class UpstreamFileTests(SynchronousTestCase):
    """The file of the local upstream."""

    def test_what_is_written_is_read(self) -> None:
        """The file holds all that was written and leaves no other file behind."""
        directory = Path(self.mktemp())
        directory.mkdir()
        write_upstream_file(directory / "upstream.json", LOCAL)
        self.assertEqual(read_upstream_file(directory / "upstream.json"), LOCAL)
        self.assertEqual([path.name for path in directory.iterdir()], ["upstream.json"])

    def test_another_file_is_refused(self) -> None:
        """What is not such a file is refused with its name."""
        path = Path(self.mktemp())
        for text in ("", "{}", "[]", '{"https": "443"}', "{"):
            path.write_text(text)
            self.assertIn(str(path), str(self.assertRaises(ValueError, read_upstream_file, path)))


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
