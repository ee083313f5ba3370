"""Tests of `nitroproxy.config.options`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import ClassVar

from twisted.application import app
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy import __version__
from nitroproxy.config import load as load_module
from nitroproxy.config.options import DaemonOptions, table, tls_settings
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import ClientCertificate, Tls
from nitroproxy.tls.settings import ClientCertificateFiles, TLSSettings


class Case(SynchronousTestCase):
    """Parses options with the streams caught, and without looking at this machine's configuration."""

    def setUp(self) -> None:
        """There is no file in the default place."""
        self.patch(load_module, "DEFAULT_PATH", self.mktemp())
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def file(self, content: str) -> str:
        """The path of a new file with *content*."""
        path: str = self.mktemp()
        Path(path).write_text(content, encoding="utf-8")
        return path

    def exit_status(self, arguments: Sequence[str], environ: dict[str, str] | None = None) -> object:
        """The status that parsing *arguments* ends the process with."""
        return self.assertRaises(SystemExit, DaemonOptions(environ or {}).parseOptions, arguments).code


class DaemonOptionsTests(Case):
    """What each option does."""

    def test_defaults(self) -> None:
        """Without options there is the default configuration, and nothing is printed."""
        options = DaemonOptions({})
        options.parseOptions([])
        self.assertEqual(options.configuration.settings, Settings())
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("", ""))

    def test_sources(self) -> None:
        """--config names the file, --set may be repeated, and the environment counts."""
        path = self.file('{"enclave": {"cid": 20}}')
        for option in (["--config", path], ["-c", path], [f"--config={path}"]):
            options = DaemonOptions({"ENCLAVE_PORT": "5005"})
            options.parseOptions([*option, "--set", "host_proxy.port=8081", "--set", "egress.allow=*:443,*:8443"])
            settings = options.configuration.settings
            self.assertEqual((settings.enclave.cid, settings.enclave.port), (20, 5005))
            self.assertEqual(settings.host_proxy.port, 8081)
            self.assertEqual(settings.egress.allow, ("*:443", "*:8443"))

    def test_process_environment(self) -> None:
        """twistd passes no environment: that of the process is meant."""
        self.patch(sys.modules["os"], "environ", {"ENCLAVE_CID": "20"})
        options = DaemonOptions()
        options.parseOptions([])
        self.assertEqual(options.configuration.settings.enclave.cid, 20)

    def test_check_valid(self) -> None:
        """--check-config of a valid configuration says so, and which it is, and exits 0."""
        path = self.file("{}")
        self.assertEqual(self.exit_status(["--check-config", "-c", path]), 0)
        self.assertEqual(self.out.getvalue(), f"configuration is valid: {path}\n")

    def test_check_trust_roots(self) -> None:
        """--check-config loads the trust roots where they are needed: what the daemon would die of is exit 1."""

        class Needing(DaemonOptions):
            reads_tls_files = True

        missing, broken = str(Path(self.mktemp()).absolute()), str(Path(self.file("not PEM")).absolute())
        for ca_file, why in ((missing, "No such file or directory"), (broken, "holds no certificate in PEM")):
            arguments = ["--check-config", "--set", f"tls.ca_file={ca_file}"]
            self.assertEqual(self.exit_status(arguments), 0, "the host has no use for them")
            ended = self.assertRaises(SystemExit, Needing({}).parseOptions, arguments)
            self.assertEqual(ended.code, 1)
            self.assertIn(f"tls.ca_file: {ca_file}: {why} (from option --set)\n", self.err.getvalue())
        arguments = ["--check-config", "--set", f"tls.ca_file={missing}", "--set", "tls.verify_certificates=false"]
        ended = self.assertRaises(SystemExit, Needing({"DEBUG_MODE": "true"}).parseOptions, arguments)
        self.assertEqual(ended.code, 0, "without verification they are not loaded")

    def test_check_every_tls_file(self) -> None:
        """--check-config names every file of the section tls that cannot be used, in one line each."""

        class Needing(DaemonOptions):
            reads_tls_files = True

        certificates = '{"a.example:443": {"certificate_file": "/no/such/certificate", "key_file": "/no/such/key"}}'
        arguments = ["--check-config", "--set", "tls.ca_file=/no/such/a", "--set", "tls.extra_ca_file=/no/such/b"]
        arguments += ["--set", f"tls.client_certificates={certificates}"]
        ended = self.assertRaises(SystemExit, Needing({}).parseOptions, arguments)
        self.assertEqual(ended.code, 1)
        self.assertEqual(
            self.err.getvalue(),
            "tls.ca_file: /no/such/a: No such file or directory (from option --set)\n"
            "tls.extra_ca_file: /no/such/b: No such file or directory (from option --set)\n"
            "tls.client_certificates: a.example:443: /no/such/certificate: No such file or directory"
            " (from option --set)\n",
        )

    def test_settings(self) -> None:
        """Every key of the section tls that handshakes depend on reaches them."""
        files = ClientCertificate(certificate_file="/a.pem", key_file="/a.key")
        tls = Tls(
            min_version="TLSv1.2",
            verify_certificates=False,
            ca_file="/ca",
            extra_ca_file="/extra",
            certificate_profile="openssl",
            client_certificates={"a.example:443": files},
        )
        expected = TLSSettings(
            min_version="TLSv1.2",
            verify=False,
            ca_file="/ca",
            extra_ca_file="/extra",
            client_certificates={"a.example:443": ClientCertificateFiles("/a.pem", "/a.key")},
            profile="openssl",
        )
        self.assertEqual(tls_settings(tls), expected)

    def test_check_without_a_file(self) -> None:
        """--check-config without a file says that there is none."""
        self.assertEqual(self.exit_status(["--check-config"]), 0)
        self.assertEqual(self.out.getvalue(), "configuration is valid: defaults, without a file\n")

    def test_print(self) -> None:
        """--print-config prints each key, its value and its source, aligned, and exits 0."""
        self.assertEqual(self.exit_status(["--print-config", "--set", "enclave.port=5005"], {"ENCLAVE_CID": "20"}), 0)
        lines = self.out.getvalue().splitlines()
        rows = {line.split()[0]: line for line in lines}
        self.assertEqual(rows["enclave.cid"].split(maxsplit=2)[1:], ["20", "env ENCLAVE_CID"])
        self.assertEqual(rows["enclave.port"].split(maxsplit=2)[1:], ["5005", "option --set"])
        self.assertEqual(
            len({line.index(value) for line, value in ((rows["enclave.cid"], "20"), (rows["egress.port"], "5001"))}), 1
        )
        self.assertEqual(len({rows["tls.ca_file"].index("default"), rows["egress.allow"].index("default")}), 1)

    def test_version(self) -> None:
        """--version prints nitroproxy's version, not Twisted's."""
        self.assertEqual(self.exit_status(["--version"]), 0)
        self.assertEqual(self.out.getvalue(), f"nitroproxy {__version__}\n")

    def test_bad(self) -> None:
        """A bad configuration is exit 1, with its problems on standard error and nothing else."""
        for arguments in ([], ["--check-config"], ["--print-config"]):
            self.err.truncate(0)
            self.err.seek(0)
            self.assertEqual(self.exit_status([*arguments, "--set", "enclave.cid=x"], {"LOG_LEVEL": "loud"}), 1)
            self.assertEqual(self.out.getvalue(), "")
            first, second = self.err.getvalue().splitlines()
            self.assertTrue(first.startswith("logging.level: "), first)
            self.assertTrue(second.startswith("enclave.cid: "), second)

    def test_internal_options(self) -> None:
        """The help leaves out what the daemon gives to its own processes, which is taken all the same."""

        class Own(DaemonOptions):
            optParameters: ClassVar = [["worker", None, None, "Which worker to be."]]
            internal = frozenset({"worker"})

        options = Own({})
        self.assertNotIn("--worker", str(options))
        self.assertIn("--config", str(options))
        options.parseOptions(["--worker", "1"])
        self.assertEqual(options["worker"], "1")

    def test_unknown_option(self) -> None:
        """An option that does not exist is a usage error, which twistd reports."""
        self.assertRaises(usage.UsageError, DaemonOptions({}).parseOptions, ["--no-such"])


class TableTests(Case):
    """The table that --print-config prints."""

    def test_no_trailing_space(self) -> None:
        """There is a line for each key, and none ends in spaces."""
        options = DaemonOptions({})
        options.parseOptions([])
        lines = table(options.configuration).split("\n")
        self.assertEqual(lines, [line.rstrip() for line in lines])
        self.assertEqual(len(lines), len(list(options.configuration.rows())))


class _TwistdOptions(app.ServerOptions):
    """twistd's options with one plugin, independent of what is installed."""

    subCommands: ClassVar = [["nitroproxy-host", None, DaemonOptions, "the host daemon"]]


class TwistdTests(Case):
    """The options under twistd."""

    def run_twistd(self, *arguments: str) -> object:
        """The status that twistd ends with before it would run anything."""
        self.patch(sys, "argv", ["twistd", "nitroproxy-host", *arguments])
        return self.assertRaises(SystemExit, app.run, self.fail, _TwistdOptions).code

    def test_bad(self) -> None:
        """twistd ends with 1 on a bad configuration, and adds neither its usage text nor a traceback."""
        path = self.mktemp()
        self.assertEqual(self.run_twistd("--config", path), 1)
        self.assertEqual(self.out.getvalue(), "")
        self.assertEqual(self.err.getvalue(), f"{path}: cannot be read: No such file or directory\n")

    def test_check(self) -> None:
        """--check-config ends twistd with 0 before it runs anything."""
        self.assertEqual(self.run_twistd("--check-config", "-c", self.file("{}")), 0)
