"""`nitroproxy demo`: the command line of the demonstration, which is a package of its own."""

from __future__ import annotations

import argparse
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nitroproxy.commands.arguments import Subparsers, base_url, seconds
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, LocalUpstream, read_upstream_file

if TYPE_CHECKING:
    from nitroproxy.demo.main import Options

_PUBLIC_TARGET: Final = "https://httpbin.org"
#: The kinds of report that can be written to a file, and what each is.
_REPORTS: Final = {"json": "JSON", "junit": "JUnit XML", "html": "one HTML page"}


def add_parser(subparsers: Subparsers) -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="send requests through a running proxy and report on them",
        description="Send requests through a running proxy, check the answers, and report on them.",
        epilog="Exit status: 0 if all cases passed, 1 if one did not or the proxy cannot be reached.",
    )
    parser.add_argument(
        "--proxy",
        type=_proxy_url,
        default="http://127.0.0.1:8080",
        metavar="URL",
        help="the gateway on the host (default: %(default)s)",
    )
    parser.add_argument(
        "--target", type=_target_url, metavar="URL", help=f"the httpbin to send requests to (default: {_PUBLIC_TARGET})"
    )
    parser.add_argument(
        "--upstream",
        type=Path,
        metavar="FILE",
        help="use the local upstream (python -m nitroproxy.demo.upstream) that wrote this file",
    )
    parser.add_argument(
        "--refusals",
        type=_refusal,
        action="append",
        default=[],
        metavar="NAME=URL",
        help=f"a server that must be refused; NAME is one of {', '.join(BAD_CERTIFICATES)}; repeatable",
    )
    parser.add_argument("--only", action="append", metavar="CASE", help="try this case only (see --list); repeatable")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument(
        "--timeout", type=seconds(), default=60.0, metavar="SECONDS", help="for each case (default: %(default)g)"
    )
    for kind, words in _REPORTS.items():
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the report as {words}")
    parser.set_defaults(run=partial(run, parser))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Run the demonstration; the exit status. See `nitroproxy.demo.main.run`."""
    from nitroproxy.demo.main import CASES
    from nitroproxy.demo.main import run as run_demonstration

    if arguments.list:
        for case in CASES.values():
            print(f"{case.name:28}{case.title}")
        return 0
    return run_demonstration(options_of(parser, arguments))


def options_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Options:
    """What *arguments* ask for.

    :param parser: reports what does not go together.
    :raises SystemExit: with 2 for that.
    """
    from nitroproxy.demo.cases import Setting
    from nitroproxy.demo.main import CASES, Options

    for name in arguments.only or ():
        if name not in CASES:
            parser.error(f"argument --only: there is no case {name!r}; --list shows the cases")
    refused_urls = dict(arguments.refusals)
    upstream: LocalUpstream | None = None
    target = arguments.target or _PUBLIC_TARGET
    if arguments.upstream is not None:
        if arguments.target or refused_urls:
            parser.error("--upstream brings its own target and refusals: leave out --target and --refusals")
        try:
            upstream = read_upstream_file(arguments.upstream)
        except (OSError, ValueError) as error:
            parser.error(f"argument --upstream: {error}")
        target = upstream.url("https")
        refused_urls = {name: upstream.url(name) for name in BAD_CERTIFICATES}
    files = {kind: getattr(arguments, kind) for kind in _REPORTS if getattr(arguments, kind) is not None}
    for kind, path in files.items():
        if not path.parent.is_dir():
            parser.error(f"argument --{kind}: there is no directory {path.parent} to write {path.name} into")
    return Options(
        proxy=arguments.proxy,
        setting=Setting(target, upstream, refused_urls, canary=f"canary-{uuid.uuid4().hex}"),
        cases=tuple(case for name, case in CASES.items() if not arguments.only or name in arguments.only),
        timeout=arguments.timeout,
        files=files,
    )


def _proxy_url(text: str) -> str:
    return base_url(text, ("http",))


def _target_url(text: str) -> str:
    return base_url(text, ("https", "http"))


def _refusal(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if name not in BAD_CERTIFICATES:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(BAD_CERTIFICATES)}")
    return name, base_url(url, ("https",))
