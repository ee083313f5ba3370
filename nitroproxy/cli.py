"""The `nitroproxy` command: what a person runs by hand. The daemons are twistd's.

Parses the command line and hands over to what does the work, which is imported only then.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from twisted.python import usage

from nitroproxy import options
from nitroproxy.options import DaemonOptions
from nitroproxy.settings import json_schema


class ConfigOptions(DaemonOptions):
    """`nitroproxy config`: the daemons' options about the configuration; without any it is printed."""

    synopsis = "[options]"
    longdesc = "Checks or prints the configuration that the daemons would use; prints it when not told which."

    optFlags: ClassVar = [["schema", None, "Print the JSON Schema of the configuration file and exit."]]

    def postOptions(self) -> None:
        """Print the schema, or else the configuration unless it is only to be checked.

        :raises SystemExit: always.
        """
        if self["schema"]:
            sys.stdout.write(json_schema())
            raise SystemExit(0)
        if not self["check-config"]:
            self["print-config"] = True
        super().postOptions()


class PolicyCheckOptions(DaemonOptions):
    """`nitroproxy policy check`: what would become of requests."""

    synopsis = "[options] URL..."
    longdesc = (
        "Says of each URL, or host:port as CONNECT names it, whether it may be reached, and why. "
        "The exit status is 1 if any may not."
    )

    optFlags: ClassVar = [
        ["no-lookup", None, "Do not look names up: decide by name and port alone."],
        ["json", None, "Print a JSON document."],
    ]

    urls: Sequence[str] = ()

    def parseArgs(self, *urls: str) -> None:
        """Take the URLs.

        :raises usage.UsageError: if there are none.
        """
        if not urls:
            raise usage.UsageError("policy check: expected at least one URL")
        self.urls = urls

    def run(self) -> int:
        """Print what would become of each; the exit status."""
        from nitroproxy.foresight import foresee
        from nitroproxy.host.interfaces import own_addresses
        from nitroproxy.host.lookup import look_up
        from nitroproxy.policy import AddressGuard

        settings = self.configuration.settings
        guard = AddressGuard(settings.egress.allow_addresses, own_addresses)
        found = [foresee(url, settings, guard, None if self["no-lookup"] else look_up) for url in self.urls]
        if self["json"]:
            print(json.dumps([one.to_dict() for one in found], indent=2))
        else:
            for one in found:
                print(one.line)
        return 1 if any(one.error for one in found) else 0


class PolicyOptions(options.Options):
    """`nitroproxy policy`."""

    synopsis = "check [options] URL..."

    subCommands: ClassVar = [
        ["check", None, PolicyCheckOptions, "Say whether URLs may be reached, and why."],
    ]

    def run(self) -> int:
        """Do what the command under it does; the exit status.

        :raises usage.UsageError: if there is none.
        """
        if self.subCommand is None:
            raise usage.UsageError("policy: expected a command: check")
        status: int = self.subOptions.run()
        return status


class InstallOptions(options.Options):
    """`nitroproxy install-units`."""

    synopsis = "[options]"
    longdesc = "Puts the systemd units, the configuration and the system user in place. Edited files are left alone."

    optParameters: ClassVar = [["root", None, "/", "What stands for /: the root of an image that is being built."]]

    def run(self) -> int:
        """Install; the exit status."""
        from nitroproxy.install import InstallError, install_units, source_directory

        try:
            for placed in install_units(source_directory(), Path(self["root"]), Path(sys.executable).parent):
                note = f"; edited, left alone: the new one is {placed.path}.new" if placed.outcome == "edited" else ""
                print(f"{placed.outcome:9}  {placed.path}{note}")
        except InstallError as error:
            sys.stderr.write(f"nitroproxy: {error}\n")
            return 1
        print("next: systemd-sysusers; systemctl daemon-reload; systemctl enable --now nitroproxy-host")
        return 0


class RunEnclaveOptions(DaemonOptions):
    """`nitroproxy run-enclave`."""

    synopsis = "[options] --eif FILE"
    longdesc = "Starts the enclave image with nitro-cli as the configuration says (enclave.*), and stays while it runs."

    optParameters: ClassVar = [
        ["eif", None, None, "The enclave image."],
        ["nitro-cli", None, "nitro-cli", "The nitro-cli program."],
    ]
    optFlags: ClassVar = [["debug-mode", None, "Start it in debug mode: with a console, and without attestation."]]

    def run(self) -> int:
        """Run; the exit status.

        :raises usage.UsageError: without an image.
        """
        from nitroproxy.eif import NitroCLI, NitroError, supervise
        from nitroproxy.notify import Notifier

        if not self["eif"]:
            raise usage.UsageError("run-enclave: expected --eif FILE")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stop.set())
        try:
            supervise(
                NitroCLI(self["nitro-cli"]),
                self.configuration.settings.enclave,
                self["eif"],
                debug=bool(self["debug-mode"]),
                notifier=Notifier(os.environ),
                stop=stop,
            )
        except NitroError as error:
            sys.stderr.write(f"nitroproxy: {error}\n")
            return 1
        return 0


class LogsOptions(usage.Options):
    """`nitroproxy logs`."""

    synopsis = "[options]"
    longdesc = "Shows what the daemons have logged to systemd's journal; the enclave's log is part of the host's."

    optParameters: ClassVar = [
        ["request-id", "r", None, "Only what is about this request: its way through all hops."],
        ["lines", "n", "200", "How many lines, from the end."],
    ]
    optFlags: ClassVar = [["follow", "f", "Go on with what is logged from now on."]]

    def run(self) -> int:
        """Become journalctl; the exit status if there is none."""
        command = ["journalctl", "--output=cat", f"--lines={self['lines']}"]
        command += [f"--unit=nitroproxy-{name}" for name in ("host", "enclave", "eif")]
        if self["follow"]:
            command.append("--follow")
        if self["request-id"]:
            command.append(f"--grep={re.escape(self['request-id'])}")
        try:
            os.execvp(command[0], command)  # noqa: S606  # No shell.
        except OSError as error:
            sys.stderr.write(
                f"nitroproxy: journalctl: {error.strerror}; without systemd the log is where twistd writes\n"
            )
            return 1


class StatusOptions(usage.Options):
    """`nitroproxy status`."""

    synopsis = "[options]"
    longdesc = "Asks the gateway how each layer is. The exit status is 1 if one fails."

    optParameters: ClassVar = [
        ["url", None, "http://127.0.0.1:8080", "The gateway."],
        ["interval", None, 2.0, "Seconds between two looks with --watch.", float],
    ]
    optFlags: ClassVar = [
        ["json", None, "Print a JSON document."],
        ["watch", "w", "Look again and again, until interrupted."],
    ]

    def run(self) -> int:
        """Look; the exit status."""
        from nitroproxy.status import look, render, watch

        url = str(self["url"]).rstrip("/")
        if self["watch"]:
            with contextlib.suppress(KeyboardInterrupt):
                watch(url, self["interval"])
            return 0
        status = look(url)
        print(json.dumps(status.to_dict(), indent=2) if self["json"] else render(status, time.time()))
        return 0 if status.good else 1


class DemoOptions(usage.Options):
    """`nitroproxy demo`: takes its arguments as they are; the demonstration has a parser of its own."""

    arguments: Sequence[str] = ()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Keep *options* for the demonstration."""
        self.arguments = list(options or ())

    def run(self) -> int:
        """Run the demonstration; the exit status."""
        from nitroproxy.demo.main import run

        return run(self.arguments)


class Options(options.Options):
    """The command line of `nitroproxy`."""

    synopsis = (
        "Usage: nitroproxy [--version] [--help] config|policy|status|logs|install-units|run-enclave|demo [options]"
    )
    longdesc = "The daemons are started with `twistd nitroproxy-host` and `twistd nitroproxy-enclave`."

    subCommands: ClassVar = [
        ["config", None, ConfigOptions, "Check or print the configuration, or print its JSON Schema."],
        ["policy", None, PolicyOptions, "Say what the policy makes of a URL."],
        ["status", None, StatusOptions, "How the running stack is."],
        ["logs", None, LogsOptions, "What the daemons have logged to the journal."],
        ["install-units", None, InstallOptions, "Put systemd units and configuration in place."],
        ["run-enclave", None, RunEnclaveOptions, "Start the enclave image and stay while it runs."],
        ["demo", None, DemoOptions, "Send requests through a running proxy and report on them."],
    ]

    def postOptions(self) -> None:
        """Insist on a command.

        :raises usage.UsageError: if there is none.
        """
        if self.subCommand is None:
            raise usage.UsageError("expected a command")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: the arguments after the command's name; those of the process when None.
    :returns: the exit status: 2 if the command line cannot be understood.
    :raises SystemExit: with the exit status, where an option ends the command.
    """
    command = Options()
    try:
        command.parseOptions(sys.argv[1:] if argv is None else list(argv))
        # `config` has ended in its options.
        status: int = command.subOptions.run()
    except usage.UsageError as error:
        sys.stderr.write(f"nitroproxy: {error}\n{command}\n")
        return 2
    return status
