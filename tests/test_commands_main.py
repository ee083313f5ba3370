"""Tests of `nitroproxy.commands.main`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.commands.status
import nitroproxy.demo.main
from nitroproxy import __version__
from nitroproxy.commands.main import Options, main
from nitroproxy.commands.status import Status
from nitroproxy.config import load
from nitroproxy.config.schema import json_schema


class MainTests(SynchronousTestCase):
    """The `nitroproxy` command."""

    def setUp(self) -> None:
        """The streams are caught; there is no configuration on this machine."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {})
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def exit_status(self, *argv: str) -> object:
        """The status that the command ends with in its options."""
        return self.assertRaises(SystemExit, main, argv).code

    def test_version(self) -> None:
        """--version prints nitroproxy's version, before and after a command."""
        commands = [name for name, *_ in Options.subCommands]
        for argv in ([], ["policy", "check"], *([command] for command in commands)):
            self.assertEqual(self.exit_status(*argv, "--version"), 0)
        self.assertEqual(self.out.getvalue(), f"nitroproxy {__version__}\n" * (len(commands) + 2))

    def test_help(self) -> None:
        """--help tells the commands."""
        self.assertEqual(self.exit_status("--help"), 0)
        self.assertIn("demo", self.out.getvalue())
        self.assertIn("config", self.out.getvalue())

    def test_print(self) -> None:
        """`config` prints the configuration, with or without being told to."""
        self.assertEqual(self.exit_status("config", "--set", "enclave.cid=20"), 0)
        once = self.out.getvalue()
        self.assertRegex(once, r"(?m)^enclave\.cid +20 +option --set$")
        self.assertEqual(self.exit_status("config", "--print-config", "--set", "enclave.cid=20"), 0)
        self.assertEqual(self.out.getvalue(), once * 2)

    def test_check(self) -> None:
        """`config --check-config` checks, and only that."""
        self.assertEqual(self.exit_status("config", "--check-config"), 0)
        self.assertEqual(self.out.getvalue(), "configuration is valid: defaults, without a file\n")
        self.assertEqual(self.exit_status("config", "--check-config", "--set", "enclave.cid=x"), 1)
        self.assertEqual(len(self.err.getvalue().splitlines()), 1)
        self.assertEqual(self.exit_status("config", "--check-config", "--set", "tls.ca_file=/no/such/file"), 1)
        self.assertIn("tls.ca_file: /no/such/file: No such file", self.err.getvalue())

    def test_schema(self) -> None:
        """`config --schema` prints the JSON Schema, also where the configuration is bad."""
        self.assertEqual(self.exit_status("config", "--schema", "--set", "enclave.cid=x"), 0)
        self.assertEqual(self.out.getvalue(), json_schema())

    def test_demo(self) -> None:
        """`demo` gets the rest of the command line as it is, and its status is the command's."""
        seen: list[Sequence[str]] = []

        def run(argv: Sequence[str]) -> int:
            seen.append(argv)
            return 1

        self.patch(nitroproxy.demo.main, "run", run)
        self.assertEqual(main(["demo", "--proxy", "http://127.0.0.1:8080", "--help"]), 1)
        self.assertEqual(seen, [["--proxy", "http://127.0.0.1:8080", "--help"]])

    def test_policy_check(self) -> None:
        """`policy check` says of each URL what would become of it, by the configuration; status 1 if one may not."""
        rules = ["--set", 'egress.allow=["10.0.0.0/8:443"]', "--set", "egress.allow_addresses=10.0.0.0/8"]
        self.assertEqual(main(["policy", "check", *rules, "https://10.0.0.1/"]), 0)
        self.assertIn("allowed: by '10.0.0.0/8:443'", self.out.getvalue())
        self.assertEqual(main(["policy", "check", *rules, "https://10.0.0.1/", "https://a.example/"]), 1)
        self.assertIn("403 destination_not_allowed", self.out.getvalue())

    def test_policy_check_json(self) -> None:
        """--json gives the same as a document, --no-lookup does without the resolver."""
        self.assertEqual(main(["policy", "check", "--json", "--no-lookup", "https://nowhere.invalid/"]), 0)
        [found] = json.loads(self.out.getvalue())
        self.assertTrue(found["allowed"])

    def journalctl(self, *argv: str) -> list[str]:
        """The command that `nitroproxy logs` becomes."""
        became: list[list[str]] = []

        def execvp(file: str, command: list[str]) -> None:
            became.append(command)
            raise OSError(errno.ENOENT, "none here")

        self.patch(os, "execvp", execvp)
        self.assertEqual(main(["logs", *argv]), 1)
        return became[0]

    def test_logs(self) -> None:
        """The last lines, or those of one request: of that and no other, and not newest first, as --lines would."""
        self.assertIn("--lines=200", self.journalctl())
        command = self.journalctl("--request-id", "a.c-5", "--follow")
        self.assertFalse([argument for argument in command if argument.startswith("--lines")])
        self.assertTrue({"--follow", "--case-sensitive=true"} < set(command))
        [pattern] = [argument.removeprefix("--grep=") for argument in command if argument.startswith("--grep=")]
        for line in ("x id=a.c-5", "x id=a.c-5 opened_by=b", "x opened_by=a.c-5 y", '{"request_id":"a.c-5","x":1}'):
            self.assertRegex(line, pattern)
        for line in ("x id=a.c-55", "x id=ba.c-5", "x id=a.c-5-1", "x id=abc-5", "x id=A.C-5", "x id=0.a.c-5"):
            self.assertNotRegex(line, pattern)

    def test_status_of(self) -> None:
        """`status` asks the gateway that the configuration has, or the one it is given, whatever the configuration."""
        asked: list[str] = []

        def look(url: str) -> Status:
            asked.append(url)
            return Status(url, True, status="pass")

        self.patch(nitroproxy.commands.status, "look", look)
        self.patch(os, "environ", {"HOST_PROXY_PORT": "9090"})
        for options in (
            [],
            ["--set", "host_proxy.interface=0.0.0.0"],
            ["--set", "host_proxy.interface=::1", "--set", "host_proxy.port=1"],
            ["--url", "http://10.0.0.1:80/", "--set", "enclave.cid=x"],
        ):
            self.assertEqual(main(["status", *options]), 0)
        self.assertEqual(
            asked, ["http://127.0.0.1:9090", "http://127.0.0.1:9090", "http://[::1]:1", "http://10.0.0.1:80"]
        )

    def test_nobody_reads(self) -> None:
        """Output that nobody reads to its end is no error to tell."""
        command = [sys.executable, "-c", "import sys; from nitroproxy.commands.main import main; sys.exit(main())"]
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*command, "config"], check=False, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (1, b""))

    def test_bad_usage(self) -> None:
        """No command, one that does not exist or an unknown option is status 2, with the usage on standard error."""
        for argv in (
            *([], ["nonsense"], ["--nonsense"], ["config", "--nonsense"], ["config", "nonsense"]),
            *(["policy"], ["policy", "check"], ["policy", "nonsense"], ["policy", "check", "a:1", "--json"]),
            *(["status", "--interval", interval] for interval in ("-1", "0", "nan", "inf", "x")),
        ):
            self.err.truncate(0)
            self.err.seek(0)
            self.assertEqual(main(argv), 2, argv)
            self.assertTrue(self.err.getvalue().startswith("nitroproxy: "))
            self.assertIn("Usage: nitroproxy", self.err.getvalue())
        self.assertEqual(self.out.getvalue(), "")
