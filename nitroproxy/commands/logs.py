"""`nitroproxy logs`: shows what the daemons logged to systemd's journal, by way of journalctl."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from typing import Final

from nitroproxy.commands.arguments import Subparsers, complain, count

_UNITS: Final = ("host", "enclave", "eif", "credentials")
_LINES: Final = 200
_EPILOG: Final = """\
The enclave sends its log to the host (logging.port), so on the parent instance the log of the host has both. Where the
host daemon has never run, as in a VM that runs the enclave daemon under systemd, the enclave's own log is shown.

For more detail set the level to DEBUG: "logging": {"level": "DEBUG"} in the configuration file, then
`systemctl reload nitroproxy-host`; or LOG_LEVEL=DEBUG in /etc/nitroproxy/nitroproxy.env, then
`systemctl restart nitroproxy-host`. The enclave has a configuration of its own, in its image.

Exit status: 0; 1 if no line matches, or journalctl fails."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``logs`` to the command line."""
    parser = subparsers.add_parser(
        "logs",
        help="show what the daemons logged",
        description="Show what the daemons logged to systemd's journal.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-r",
        "--request-id",
        metavar="ID",
        help="only lines about this request, on all hops, oldest first; the id is in the response's "
        "Nitroproxy-Request-Id or X-Request-Id",
    )
    parser.add_argument(
        "-n",
        "--lines",
        metavar="COUNT",
        type=count,
        default=_LINES,
        help="show this many lines, from the end (default: %(default)s); of a request all are shown",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines until interrupted")
    parser.add_argument(
        "-u",
        "--unit",
        choices=_UNITS,
        action="append",
        help="show the log of this unit (nitroproxy-UNIT.service) only; repeatable (default: host and eif)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run journalctl; the exit status."""
    try:
        units = arguments.unit or (("host", "eif") if _has_logged("host") else ("enclave", "eif"))
        command = _command(arguments, units)
        if arguments.follow:
            os.execvp(command[0], command)  # noqa: S606  # No shell.
        return _show(command, arguments.request_id)
    except OSError as error:
        return complain(f"journalctl: {error.strerror}; without systemd the log is where twistd writes it")


def _has_logged(unit: str) -> bool:
    command = [*_journalctl((unit,)), "--quiet", "--lines=1"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
    return bool(done.stdout)


def _journalctl(units: tuple[str, ...]) -> list[str]:
    return ["journalctl", "--output=cat", *(f"--unit=nitroproxy-{unit}" for unit in units)]


def _command(arguments: argparse.Namespace, units: tuple[str, ...]) -> list[str]:
    command = _journalctl(units)
    if arguments.request_id:
        # An id ends where none of the characters of ids follows. With --lines the newest would come first.
        pattern = f"(?<![\\w.-]){re.escape(arguments.request_id)}(?![\\w.-])"
        command += [f"--grep={pattern}", "--case-sensitive=true", "--no-tail"]
    else:
        command.append(f"--lines={arguments.lines}")
    return [*command, "--follow" if arguments.follow else "--quiet"]


def _show(command: list[str], request_id: str | None) -> int:
    """Copy what journalctl prints to standard output; says so when there is nothing."""
    printed = False
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603  # No shell.
        assert process.stdout is not None
        for line in process.stdout:
            printed = True
            sys.stdout.buffer.write(line)
    if printed:
        return 0
    if request_id:
        return complain(
            f"no line in the journal is about request {request_id}: check the id; the journal may have been rotated, "
            "logging.access may be off, and only root and the group systemd-journal may read it"
        )
    return complain("the journal has no line of these units, or you may not read it (root, group systemd-journal)")
