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
from typing import Any, ClassVar, Final

from twisted.python import usage

from nitroproxy.config import options
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import json_schema

#: Seconds between two looks of `status --watch`, at most.
_LONGEST_INTERVAL: Final = 86400.0


class ConfigOptions(DaemonOptions):
    """`nitroproxy config`: the daemons' options about the configuration; without any it is printed."""

    synopsis = "[options]"
    longdesc = "Checks or prints the configuration that the daemons would use; prints it when not told which."
    reads_tls_files = True

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
        for url in urls:
            if url.startswith("-"):
                raise usage.UsageError(f"policy check: options go before the URLs: {url}")
        self.urls = urls

    def run(self) -> int:
        """Print what would become of each; the exit status."""
        from nitroproxy.commands.policy_check import check_url
        from nitroproxy.host.dns import look_up
        from nitroproxy.host.own_addresses import own_addresses
        from nitroproxy.policy import AddressGuard

        settings = self.configuration.settings
        guard = AddressGuard(settings.egress.allow_addresses, own_addresses)
        found = [check_url(url, settings, guard, None if self["no-lookup"] else look_up) for url in self.urls]
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
        from nitroproxy.commands.install_units import InstallError, install_units, source_directory

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
    optFlags: ClassVar = [
        ["debug-mode", None, "Start it in debug mode: with a console, and without attestation."],
        ["any-kernel", None, "Start it even if it was built for the emulator."],
    ]

    def run(self) -> int:
        """Run; the exit status.

        :raises usage.UsageError: without an image.
        """
        from nitroproxy.commands.run_enclave import NitroCLI, NitroError, check_image, supervise
        from nitroproxy.daemon.systemd import Notifier

        if not self["eif"]:
            raise usage.UsageError("run-enclave: expected --eif FILE")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stop.set())
        enclave = self.configuration.settings.enclave
        try:
            check_image(Path(self["eif"]), enclave.memory_mb, any_kernel=bool(self["any-kernel"]))
            supervise(
                NitroCLI(self["nitro-cli"]),
                enclave,
                self["eif"],
                debug=bool(self["debug-mode"]),
                notifier=Notifier(os.environ),
                stop=stop,
            )
        except NitroError as error:
            sys.stderr.write(f"nitroproxy: {error}\n")
            return 1
        return 0


class LogsOptions(options.Options):
    """`nitroproxy logs`."""

    synopsis = "[options]"
    longdesc = "Shows what the daemons have logged to systemd's journal; the enclave's log is part of the host's."

    optParameters: ClassVar = [
        ["request-id", "r", None, "Only what is about this request: its way through all hops, oldest first."],
        ["lines", "n", "200", "How many lines, from the end; of a request all are shown."],
    ]
    optFlags: ClassVar = [["follow", "f", "Go on with what is logged from now on."]]

    def run(self) -> int:
        """Become journalctl; the exit status if there is none."""
        command = ["journalctl", "--output=cat"]
        command += [f"--unit=nitroproxy-{name}" for name in ("host", "enclave", "eif")]
        if self["request-id"]:
            # An id ends where none of the characters of ids follows. With --lines the newest would come first.
            pattern = f"(?<![\\w.-]){re.escape(self['request-id'])}(?![\\w.-])"
            command += [f"--grep={pattern}", "--case-sensitive=true", "--no-tail"]
        else:
            command.append(f"--lines={self['lines']}")
        if self["follow"]:
            command.append("--follow")
        try:
            os.execvp(command[0], command)  # noqa: S606  # No shell.
        except OSError as error:
            sys.stderr.write(
                f"nitroproxy: journalctl: {error.strerror}; without systemd the log is where twistd writes\n"
            )
            return 1


class StatusOptions(DaemonOptions):
    """`nitroproxy status`: without --url the gateway is where the configuration has it."""

    synopsis = "[options]"
    longdesc = "Asks the gateway how each layer is. The exit status is 1 if one fails."

    optParameters: ClassVar = [
        ["url", None, None, "The gateway. [default: http:// with host_proxy.interface and port]"],
        ["interval", None, 2.0, "Seconds between two looks with --watch.", float],
    ]
    optFlags: ClassVar = [
        ["json", None, "Print a JSON document; with --watch one a line."],
        ["watch", "w", "Look again and again, until interrupted."],
    ]

    def postOptions(self) -> None:
        """Load the configuration, if it is needed to find the gateway.

        :raises usage.UsageError: if the interval is none.
        """
        if not 0 < self["interval"] <= _LONGEST_INTERVAL:
            raise usage.UsageError(f"status: --interval: expected seconds over 0, up to {_LONGEST_INTERVAL:g}")
        if self["url"] is None:
            super().postOptions()

    @property
    def url(self) -> str:
        """Of the gateway, without a slash at the end."""
        if self["url"] is not None:
            return str(self["url"]).rstrip("/")
        gateway = self.configuration.settings.host_proxy
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.interface, gateway.interface)  # noqa: S104
        return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"

    def run(self) -> int:
        """Look; the exit status."""
        from nitroproxy.commands.status import look, render, watch

        if self["watch"]:
            with contextlib.suppress(KeyboardInterrupt):
                watch(self.url, self["interval"], as_json=bool(self["json"]))
            return 0
        status = look(self.url)
        print(json.dumps(status.to_dict(), indent=2) if self["json"] else render(status, time.time()))
        return 0 if status.good else 1


class OwnParserOptions(usage.Options):
    """A command that takes its arguments as they are: what runs it has a parser of its own."""

    arguments: Sequence[str] = ()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Keep *options* for what runs."""
        self.arguments = list(options or ())


class DemoOptions(OwnParserOptions):
    """`nitroproxy demo`."""

    def run(self) -> int:
        """Run the demonstration; the exit status."""
        from nitroproxy.demo.main import run

        return run(self.arguments)


class ImageOptions(OwnParserOptions):
    """`nitroproxy image`."""

    def run(self) -> int:
        """Build, describe, measure, extract or sign; the exit status."""
        from nitroproxy.commands.image import main

        return main(self.arguments)


class EnclaveInitOptions(OwnParserOptions):
    """`nitroproxy enclave-init`."""

    def run(self) -> int:
        """Run until the enclave is over; the exit status."""
        from nitroproxy.commands.enclave_init import main

        return main(self.arguments)


class Options(options.Options):
    """The command line of `nitroproxy`."""

    synopsis = (
        "Usage: nitroproxy [--version] [--help] "
        "config|policy|status|logs|install-units|run-enclave|image|enclave-init|demo [options]"
    )
    longdesc = "The daemons are started with `twistd nitroproxy-host` and `twistd nitroproxy-enclave`."

    subCommands: ClassVar[list[list[Any]]] = [
        ["config", None, ConfigOptions, "Check or print the configuration, or print its JSON Schema."],
        ["policy", None, PolicyOptions, "Say what the policy makes of a URL."],
        ["status", None, StatusOptions, "How the running stack is."],
        ["logs", None, LogsOptions, "What the daemons have logged to the journal."],
        ["install-units", None, InstallOptions, "Put systemd units and configuration in place."],
        ["run-enclave", None, RunEnclaveOptions, "Start the enclave image and stay while it runs."],
        ["image", None, ImageOptions, "Build, describe, measure, extract or sign an enclave image."],
        ["enclave-init", None, EnclaveInitOptions, "Be the first program of an enclave."],
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
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: Sequence[str]) -> int:
    command = Options()
    try:
        command.parseOptions(list(argv))
        # `config` has ended in its options.
        status: int = command.subOptions.run()
    except usage.UsageError as error:
        sys.stderr.write(f"nitroproxy: {error}\n{command}\n")
        return 2
    return status
