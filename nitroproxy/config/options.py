"""The command-line options of the two daemons, as twistd's plugins want them; and what ``--check-config`` and
``--print-config`` do, which `nitroproxy config` does too.

Parsing the options loads the configuration. A bad one ends the process here, with its problems on standard error and
nothing else: twistd would add its usage text to a UsageError.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from nitroproxy.config.load import DEFAULT_PATH, PATH_VARIABLE, Configuration, ConfigurationError, load
from nitroproxy.config.traffic import Tls
from nitroproxy.tls.settings import ClientCertificateFiles, TLSFileError, TLSSettings
from nitroproxy.version import version_text


class DaemonOptions(usage.Options):
    """The options of `twistd nitroproxy-host` and `twistd nitroproxy-enclave`.

    :param environ: the environment; that of the process when None.
    :ivar configuration: what was loaded; set once the options have been parsed.
    :cvar reads_tls_files: the daemon reads the files that the section tls names, so ``--check-config`` does, too.
    :cvar internal: names of options that the daemon gives to its own processes, left out of the help.
    """

    reads_tls_files: ClassVar[bool] = False
    internal: ClassVar[frozenset[str]] = frozenset()

    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, f"The configuration file. [default: ${PATH_VARIABLE}, or {DEFAULT_PATH} if it exists]"],
    ]
    optFlags: ClassVar = [
        ["check-config", None, "Check the configuration and exit: 0 if it is valid, 1 if it is not."],
        ["print-config", None, "Print each key of the configuration, its value and the source of the value, and exit."],
    ]

    configuration: Configuration

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._environ = os.environ if environ is None else environ
        self._assignments: list[str] = []

    def opt_set(self, assignment: str) -> None:
        """Set a key, as in host_proxy.port=8081, overriding the environment and the file. May be repeated."""
        self._assignments.append(assignment)

    def opt_version(self) -> NoReturn:
        """Display nitroproxy's version and exit."""
        print(version_text())
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The help text, without the internal options."""
        every = self.longOpt
        self.longOpt = [name for name in every if name.removesuffix("=") not in self.internal]
        try:
            return super().getUsage(width)
        finally:
            self.longOpt = every

    def load(self) -> Configuration:
        """The configuration as the file, the environment and the command line now make it.

        :raises ConfigurationError: with everything that is wrong with it.
        """
        return load(self["config"], options=self._assignments, environ=self._environ)

    def open_log(self) -> int:
        """The descriptor that the daemon logs to: standard output, or the file that twistd was given.

        :raises SystemExit: with 1 and one line, if it cannot be opened, or twistd was given an option for its own log.
        """
        twistd: Mapping[str, object] = self.parent or {"nodaemon": True}
        foreground = twistd.get("nodaemon") or twistd.get("debug")
        path = str(twistd.get("logfile") or ("-" if foreground else "twistd.log"))
        if twistd.get("syslog") or twistd.get("logger"):
            _end("twistd's --syslog and --logger are not for nitroproxy: it logs to standard output, or to --logfile")
        if path == "-" and not foreground:
            _end("twistd has no standard output to log to in the background: give it -n, or --logfile FILE")
        if path == "-":
            return sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            _end(f"--logfile {path}: {error.strerror}")

    def postOptions(self) -> None:
        """Load the configuration; do what ``--check-config`` or ``--print-config`` asks for.

        :raises SystemExit: with 1 if the configuration cannot be used, with 0 after one of these options.
        """
        try:
            self.configuration = self.load()
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(1) from None
        if self["print-config"]:
            print(table(self.configuration))
            raise SystemExit(0)
        if self["check-config"]:
            check(self.configuration, tls_files=self.reads_tls_files)
            raise SystemExit(0)


def check(configuration: Configuration, *, tls_files: bool) -> None:
    """What ``--check-config`` does with a configuration that has been loaded: say that it is valid.

    :param tls_files: read the files that the section tls names, as the enclave's daemon does.
    :raises SystemExit: with 1 and a line for each file that cannot be used.
    """
    if tls_files:
        _check_tls_files(configuration)
    print(f"configuration is valid: {configuration.path or 'defaults, without a file'}")


def _check_tls_files(configuration: Configuration) -> None:
    from nitroproxy.tls.client import TLSClient

    try:
        TLSClient(tls_settings(configuration.settings.tls))
    except TLSFileError as error:
        for key, text in error.problems:
            sys.stderr.write(f"tls.{key}: {text} (from {configuration.source_of(f'tls.{key}')})\n")
        raise SystemExit(1) from None


def tls_settings(tls: Tls) -> TLSSettings:
    """What handshakes with destinations depend on in *tls*."""
    return TLSSettings(
        min_version=tls.min_version,
        verify=tls.verify_certificates,
        ca_file=tls.ca_file,
        extra_ca_file=tls.extra_ca_file,
        client_certificates={
            pattern: ClientCertificateFiles(files.certificate_file, files.key_file)
            for pattern, files in tls.client_certificates.items()
        },
        profile=tls.certificate_profile,
    )


def _end(line: str) -> NoReturn:
    sys.stderr.write(f"nitroproxy: {line}\n")
    raise SystemExit(1)


def table(configuration: Configuration) -> str:
    """Each key, its value and its source, aligned."""
    rows = list(configuration.rows())
    key_width = max(len(key) for key, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    return "\n".join(f"{key:{key_width}}  {value:{value_width}}  {source}" for key, value, source in rows)
