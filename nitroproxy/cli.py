"""The `nitroproxy` command: what a person runs by hand. The daemons are twistd's.

Parses the command line and hands over to what does the work, which is imported only then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
        from nitroproxy.host.dial import look_up
        from nitroproxy.host.interfaces import own_addresses
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

    synopsis = "Usage: nitroproxy [--version] [--help] config|policy|demo [options]"
    longdesc = "The daemons are started with `twistd nitroproxy-host` and `twistd nitroproxy-enclave`."

    subCommands: ClassVar = [
        ["config", None, ConfigOptions, "Check or print the configuration, or print its JSON Schema."],
        ["policy", None, PolicyOptions, "Say what the policy makes of a URL."],
        ["demo", None, DemoOptions, "Send requests through a running proxy and report on them."],
    ]

    def postOptions(self) -> None:
        """Insist on a command.

        :raises usage.UsageError: if there is none.
        """
        if self.subCommand is None:
            raise usage.UsageError("expected a command: config, policy or demo")


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
