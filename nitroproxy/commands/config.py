"""`nitroproxy config`: checks or prints the configuration that the daemons would use, or prints its JSON Schema."""

from __future__ import annotations

import argparse
import sys

from nitroproxy.commands.arguments import Subparsers, add_configuration_options, load_configuration


def add_parser(subparsers: Subparsers) -> None:
    """Add ``config`` to the command line."""
    parser = subparsers.add_parser(
        "config",
        help="check or print the configuration, or print its JSON Schema",
        description="Check or print the configuration that the daemons would use. Without an option, print it.",
        epilog="Exit status: 0 if the configuration is valid, 1 if it is not; every problem is listed at once.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check-config", action="store_true", help="check it, with the certificate and key files that it names"
    )
    what.add_argument(
        "--print-config", action="store_true", help="print each key, its value and the source of the value (default)"
    )
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of the configuration file")
    add_configuration_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for; the exit status."""
    if arguments.schema:
        from nitroproxy.config.schema import json_schema

        sys.stdout.write(json_schema())
        return 0
    from nitroproxy.config.options import check, table

    configuration = load_configuration(arguments)
    if arguments.check_config:
        check(configuration, tls_files=True)
    else:
        print(table(configuration))
    return 0
