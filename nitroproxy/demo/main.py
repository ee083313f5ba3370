"""The command line of the demonstration: reads its options, runs the cases, writes the reports."""

from __future__ import annotations

import argparse
import io
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from twisted.internet import task
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol

from nitroproxy import __version__
from nitroproxy.demo.cases import ANSWERED_CASES, Case, Setting
from nitroproxy.demo.client import DemoReactor, Gateway
from nitroproxy.demo.refusals import REFUSED_CASES
from nitroproxy.demo.report_files import as_json, as_junit
from nitroproxy.demo.report_html import as_html
from nitroproxy.demo.report_text import Console
from nitroproxy.demo.results import Report
from nitroproxy.demo.runner import run_cases
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, LocalUpstream, read_upstream_file

_CASES: Final[dict[str, Case]] = {case.name: case for case in (*ANSWERED_CASES, *REFUSED_CASES)}
_WRITERS: Final = {"json": as_json, "junit": as_junit, "html": as_html}
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    :ivar timeout: seconds for each case.
    :ivar files: where to write which report, by its kind (``json``, ``junit``, ``html``).
    """

    proxy: str
    setting: Setting
    cases: tuple[Case, ...]
    timeout: float
    files: dict[str, Path]


def run(argv: Sequence[str]) -> int:
    """Run the demonstration and return its exit status: 0 all passed, 1 a case failed or the proxy was not there.

    It runs the global reactor, which cannot be run again in the same process.

    :raises SystemExit: with 2 for bad usage and with 0 after ``--help``, ``--version`` and ``--list``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding, there is a report
    options = parse(argv)
    status = _INTERRUPTED

    async def main(reactor: DemoReactor) -> None:
        nonlocal status
        status = await demonstrate(reactor, options, Console(sys.stdout, sys.stdout.isatty()))

    try:
        task.react(main)
    except SystemExit as stop:
        return int(stop.code or status)


async def demonstrate(reactor: DemoReactor, options: Options, console: Console) -> int:
    """Run the cases, write the reports, and return the exit status."""
    where = urlsplit(options.proxy)
    try:
        probe = await connectProtocol(HostnameEndpoint(reactor, str(where.hostname), where.port or 80), Protocol())
    except (ConnectError, DNSLookupError) as error:
        return _complain(f"cannot reach the proxy at {options.proxy}: {error}")
    probe.transport.loseConnection()
    gateway = Gateway(reactor, options.proxy)
    report = await run_cases(gateway, options.cases, options.setting, options.timeout, console)
    await gateway.close()
    console.report(report)
    try:
        _write_files(report, options.files)
    except OSError as error:
        return _complain(f"cannot write the report: {error}")
    return _PASSED if report.succeeded else _FAILED


def _write_files(report: Report, files: dict[str, Path]) -> None:
    for kind, path in files.items():
        path.write_text(_WRITERS[kind](report), encoding="utf-8")


def _complain(message: str) -> int:
    print(f"nitroproxy demo: {message}", file=sys.stderr)
    return _FAILED


def parse(argv: Sequence[str]) -> Options:
    """The options that *argv* asks for.

    :raises SystemExit: with 2 for bad usage, and with 0 after ``--help`` and ``--list``.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    if given.list:
        for case in _CASES.values():
            print(f"{case.name:28}{case.title}")
        parser.exit()
    refused_urls = dict(given.refusals)
    upstream: LocalUpstream | None = None
    target = given.target or "https://httpbin.org"
    if given.upstream is not None:
        if given.target or refused_urls:
            parser.error("--upstream brings its own target and refusals: leave out --target and --refusals")
        try:
            upstream = read_upstream_file(given.upstream)
        except (OSError, ValueError) as error:
            parser.error(f"--upstream: {error}")
        target = upstream.url("https")
        refused_urls = {name: upstream.url(name) for name in BAD_CERTIFICATES}
    files = {kind: getattr(given, kind) for kind in _WRITERS if getattr(given, kind) is not None}
    for path in files.values():
        if not path.parent.is_dir():
            parser.error(f"there is no directory {path.parent} to write {path.name} into")
    return Options(
        proxy=given.proxy,
        setting=Setting(target, upstream, refused_urls, canary=f"canary-{uuid.uuid4().hex}"),
        cases=tuple(case for name, case in _CASES.items() if not given.only or name in given.only),
        timeout=given.timeout,
        files=files,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nitroproxy demo", description="Try a running proxy: send requests through it, check them, report."
    )
    parser.add_argument(
        "--proxy",
        type=_proxy_url,
        default="http://127.0.0.1:8080",
        metavar="URL",
        help="the host gateway (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        type=_target_url,
        metavar="URL",
        help="an httpbin to send requests to (default: https://httpbin.org)",
    )
    parser.add_argument(
        "--upstream", type=Path, metavar="FILE", help="use the local upstream that announced itself in this file"
    )
    parser.add_argument(
        "--refusals",
        type=_refusal,
        action="append",
        default=[],
        metavar="NAME=URL",
        help=f"a server that must be refused, NAME one of {', '.join(BAD_CERTIFICATES)}; repeatable",
    )
    parser.add_argument(
        "--only", choices=_CASES, action="append", metavar="CASE", help="try this case only; repeatable"
    )
    parser.add_argument("--version", action="version", version=f"nitroproxy {__version__}")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each case (default: %(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    return parser


def _proxy_url(text: str) -> str:
    return _base_url(text, ("http",))


def _target_url(text: str) -> str:
    return _base_url(text, ("https", "http"))


def _base_url(text: str, schemes: Sequence[str]) -> str:
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL of the form {schemes[0]}://host[:port]")
    return url


def _refusal(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if name not in BAD_CERTIFICATES:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(BAD_CERTIFICATES)}")
    return name, _base_url(url, ("https",))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
