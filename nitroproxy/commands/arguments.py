"""Options and argument types that several subcommands share, and the parser class of the whole tree.

The subcommands import it; it imports none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from nitroproxy.config.load import DEFAULT_PATH, PATH_VARIABLE, Configuration, ConfigurationError, load

#: What `argparse.ArgumentParser.add_subparsers` returns, which typeshed keeps private.
Subparsers = Any

_SET: Final = "section.key=value"


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated options: a script that uses one would break when a longer one is added."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})


def add_configuration_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--set``, which name the configuration that `load_configuration` loads."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"the configuration file (default: ${PATH_VARIABLE}, or {DEFAULT_PATH} if it exists)",
    )
    parser.add_argument(
        "--set",
        metavar=_SET,
        action="append",
        default=[],
        help="set a key of the configuration, overriding the environment and the file; repeatable",
    )


def load_configuration(arguments: argparse.Namespace) -> Configuration:
    """The configuration that the file, the environment and *arguments* make.

    :raises SystemExit: with 1 when it cannot be used, after one line on standard error for each problem.
    """
    try:
        return load(arguments.config, options=arguments.set, environ=os.environ)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


def base_url(text: str, schemes: Sequence[str]) -> str:
    """An argument: the URL of a server, without a slash at its end.

    :param schemes: that it may have.
    :raises argparse.ArgumentTypeError: it is none.
    """
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or " " in url or not url.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL of the form {schemes[0]}://host[:port]")
    return url


def seconds(longest: float = float("inf")) -> Callable[[str], float]:
    """An argument type: seconds above 0, up to *longest*.

    :returns: a function that raises `argparse.ArgumentTypeError`, which argparse reports with the option's name.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= longest or value == float("inf"):
            limit = "" if longest == float("inf") else f" and at most {longest:g}"
            raise argparse.ArgumentTypeError(f"expected seconds above 0{limit}, got {text!r}")
        return value

    return parse


def count(text: str) -> int:
    """An argument type: a whole number of 1 or more.

    :raises argparse.ArgumentTypeError: if *text* is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def complain(message: str) -> int:
    """Write *message* to standard error, marked as nitroproxy's; returns 1, the exit status of a failure."""
    sys.stderr.write(f"nitroproxy: {message}\n")
    return 1
