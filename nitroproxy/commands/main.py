"""The command line of `nitroproxy`: one tree of argparse parsers. The daemons are twistd's.

Each subcommand adds its parser and is handed the parsed arguments. What does the work is imported only then, so that
the help and the completion are quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from nitroproxy.commands import (
    attest,
    config,
    demo,
    enclave_init,
    image,
    install_units,
    logs,
    policy,
    run_enclave,
    status,
)
from nitroproxy.commands.arguments import Parser
from nitroproxy.version import version_text

#: The subcommands, in the order in which the help lists them.
COMMANDS: Final = (status, logs, policy, config, demo, install_units, run_enclave, image, enclave_init, attest)

#: Errors of a write to a full disk.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_INTERRUPTED: Final = 130


def build_parser() -> Parser:
    """The whole tree; man pages and shell completion are made from it."""
    parser = Parser(
        prog="nitroproxy",
        description="Look after nitroproxy: health, logs, policy, configuration, installation.",
        epilog="The daemons themselves are started with `twistd nitroproxy-host` and `twistd nitroproxy-enclave`. "
        "`nitroproxy COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=version_text())
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: the arguments after the command's name; those of the process when None.
    :returns: the exit status.
    :raises SystemExit: with 2 if the command line cannot be understood, after a line that says why; with 0 after
        ``--help`` and ``--version``; with 1 if the configuration cannot be used.
    """
    try:
        try:
            arguments = build_parser().parse_args(argv)
            result: int = arguments.run(arguments)
            return result
        finally:
            if sys.stdout is not None:  # It is None when the process was started with it closed.
                sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe.
        _write_no_more()
        return 1
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        print(f"nitroproxy: the output cannot be written: {os.strerror(error.errno)}", file=sys.stderr)
        _write_no_more()
        return 1


def _write_no_more() -> None:
    """Python would try to write the rest when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
