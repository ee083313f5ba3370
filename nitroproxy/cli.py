"""The `nitroproxy` command: what a person runs by hand. The daemons are twistd's.

Parses the command line and hands over to what does the work, which is imported only then.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar, NoReturn

from twisted.python import usage

from nitroproxy import __version__
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


class DemoOptions(usage.Options):
    """`nitroproxy demo`: takes its arguments as they are; the demonstration has a parser of its own."""

    arguments: Sequence[str] = ()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Keep *options* for the demonstration."""
        self.arguments = list(options or ())


class Options(usage.Options):
    """The command line of `nitroproxy`."""

    synopsis = "Usage: nitroproxy [--version] [--help] config|demo [options]"
    longdesc = "The daemons are started with `twistd nitroproxy-host` and `twistd nitroproxy-enclave`."

    subCommands: ClassVar = [
        ["config", None, ConfigOptions, "Check or print the configuration, or print its JSON Schema."],
        ["demo", None, DemoOptions, "Send requests through a running proxy and report on them."],
    ]

    def opt_version(self) -> NoReturn:
        """Display nitroproxy's version and exit."""
        print(f"nitroproxy {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Insist on a command.

        :raises usage.UsageError: if there is none.
        """
        if self.subCommand is None:
            raise usage.UsageError("expected a command: config or demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: the arguments after the command's name; those of the process when None.
    :returns: the exit status: 2 if the command line cannot be understood.
    :raises SystemExit: with the exit status, where an option ends the command.
    """
    options = Options()
    try:
        options.parseOptions(sys.argv[1:] if argv is None else list(argv))
    except usage.UsageError as error:
        sys.stderr.write(f"nitroproxy: {error}\n{options}\n")
        return 2
    # `config` has ended in its options; what is left is `demo`.
    from nitroproxy.demo.main import run

    return run(options.subOptions.arguments)
