"""Tests of `nitroproxy status`, as a command."""

from __future__ import annotations

import json
import os
import sys
import time
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands import gateway_status
from nitroproxy.commands.gateway_status import Status
from nitroproxy.commands.main import main
from nitroproxy.config import load


class Terminal(StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class StatusTests(SynchronousTestCase):
    """Which gateway is asked, and how the answers are shown."""

    def setUp(self) -> None:
        """Standard output is caught, no gateway is asked, and the second pause is interrupted."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {"HOST_PROXY_PORT": "9090"})
        self.asked: list[str] = []
        self.pauses: list[float] = []
        self.status = "pass"
        self.patch(gateway_status, "look", self.look)
        self.patch(time, "sleep", self.sleep)

    def look(self, url: str) -> Status:
        """A status without layers."""
        self.asked.append(url)
        return Status(url, True, document={"status": self.status, "layers": []})

    def sleep(self, seconds: float) -> None:
        """Note the pause; interrupt at the second one."""
        self.pauses.append(seconds)
        if len(self.pauses) == 2:
            raise KeyboardInterrupt

    def output(self, *argv: str, status: int = 0, stream: StringIO | None = None) -> str:
        """What ``status`` with *argv* prints."""
        self.patch(sys, "stdout", stream or StringIO())
        self.assertEqual(main(["status", *argv]), status)
        out: StringIO = sys.stdout  # type: ignore[assignment]
        return out.getvalue()

    def test_which(self) -> None:
        """The gateway that the configuration has is asked, or the one given, with any configuration."""
        for options in (
            [],
            ["--set", "host_proxy.interface=0.0.0.0"],
            ["--set", "host_proxy.interface=::1", "--set", "host_proxy.port=1"],
            ["--url", "http://10.0.0.1:80/", "--set", "enclave.cid=x"],
        ):
            self.output(*options)
        expected = ["http://127.0.0.1:9090", "http://127.0.0.1:9090", "http://[::1]:1", "http://10.0.0.1:80"]
        self.assertEqual(self.asked, expected)

    def test_no_url(self) -> None:
        """What is no URL of a gateway is refused before anything is asked."""
        for text in (
            "nonsense",
            "ftp://x",
            "http://",
            "http://x:0",
            "http://x:y",
            "http://x/?a",
            "http://a b",
            "http://a\tb",
            "http://me@x",
        ):
            said = StringIO()
            self.patch(sys, "stderr", said)
            with self.assertRaises(SystemExit) as ended:
                self.output("--url", text)
            self.assertEqual(ended.exception.code, 2)
            self.assertIn("is not a URL of the form http://host[:port]", said.getvalue())
        self.assertEqual(self.asked, [])

    def test_exit_status(self) -> None:
        """A failing layer is status 1, in both forms."""
        self.status = "fail"
        self.output(status=1)
        self.assertEqual(json.loads(self.output("--json", status=1))["status"], "fail")

    def test_watch_on_a_terminal(self) -> None:
        """A terminal is cleared before each look; the pause is the one asked for."""
        shown = self.output("--watch", "--interval", "3", stream=Terminal())
        self.assertEqual(shown.count("\x1b[H\x1b[2Jhttp://127.0.0.1:9090: pass"), 2)
        self.assertEqual(self.pauses, [3, 3])

    def test_watch_in_a_pipe(self) -> None:
        """A pipe or file gets no control sequences, and an empty line between the blocks."""
        shown = self.output("--watch")
        self.assertNotIn("\x1b", shown)
        self.assertEqual(len(shown.split("\n\n")), 3)

    def test_watch_as_json(self) -> None:
        """--json gives one document a line, on a terminal too."""
        lines = self.output("--watch", "--json", stream=Terminal()).splitlines()
        self.assertEqual([json.loads(line)["status"] for line in lines], ["pass", "pass"])
