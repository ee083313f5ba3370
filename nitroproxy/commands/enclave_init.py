"""`nitroproxy enclave-init`: the entry point of an enclave's image."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from nitroproxy import __version__


def add_parser(subparsers: Any) -> None:
    """Add the command to *subparsers*; it sets ``run``, which takes the parsed arguments, returns the exit status."""
    text = (
        "The first program of an enclave: brings up the loopback, starts the daemon as an unprivileged user, and when "
        "it listens the application as NITROPROXY_APP_USER (user or user:group, names or numbers; default: "
        "65533). The "
        "application's output goes to the host's log. Ends with the application's status, 128 + n after signal n."
    )
    parser = subparsers.add_parser(
        "enclave-init", help="run an enclave: the daemon and an application", description=text
    )
    parser.add_argument("--version", action="version", version=f"nitroproxy {__version__}")
    parser.add_argument(
        "--config", "-c", metavar="FILE", help="the configuration file (default: /etc/nitroproxy/config.json)"
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the application and its arguments (default: none)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from nitroproxy.enclave.init_root import run

    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    return run(words, args.config, os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nitroproxy enclave-init`` alone, as ``python -m nitroproxy.commands.enclave_init``; the exit status."""
    parser = argparse.ArgumentParser(prog="nitroproxy")
    add_parser(parser.add_subparsers(metavar="COMMAND", required=True))
    args = parser.parse_args(["enclave-init", *(sys.argv[1:] if argv is None else argv)])
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
