"""The command line of `nitroproxy demo`."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.demo.main
from nitroproxy.commands.demo import options_of
from nitroproxy.commands.main import build_parser, main
from nitroproxy.demo.main import Options
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, write_upstream_file
from tests.test_demo_cases import CASES, LOCAL, TARGET


def parse(argv: Sequence[str]) -> Options:
    """What ``nitroproxy demo`` with *argv* would run."""
    parser = build_parser()
    arguments = parser.parse_args(["demo", *argv])
    return options_of(arguments.run.args[0], arguments)


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
            (["--only", "nothing"], "there is no case 'nothing'; --list shows"),
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
            self.assertEqual(main(["demo", "--list"]), 0)
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


class RunTests(SynchronousTestCase):
    """The command."""

    def test_the_status_is_the_run_s(self) -> None:
        """The demonstration is run with the options, and its status is the command's."""
        seen: list[Options] = []

        def run(options: Options) -> int:
            seen.append(options)
            return 1

        self.patch(nitroproxy.demo.main, "run", run)
        self.patch(sys, "stdout", io.StringIO())
        self.assertEqual(main(["demo", "--proxy", "http://127.0.0.1:8081/", "--only", "get"]), 1)
        self.assertEqual((seen[0].proxy, [case.name for case in seen[0].cases]), ("http://127.0.0.1:8081", ["get"]))
