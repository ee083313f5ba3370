"""Runs the demonstration: the cases, then the reports. `commands.demo` is its command line."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from twisted.internet import task
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol

from nitroproxy.demo.cases import ANSWERED_CASES, Case, Setting
from nitroproxy.demo.client import DemoReactor, Gateway
from nitroproxy.demo.refusals import REFUSED_CASES
from nitroproxy.demo.report_files import as_json, as_junit
from nitroproxy.demo.report_html import as_html
from nitroproxy.demo.report_text import Console
from nitroproxy.demo.results import Report
from nitroproxy.demo.runner import run_cases
from nitroproxy.errors import reason_of

#: All cases by name, in the order in which they are tried.
CASES: Final[dict[str, Case]] = {case.name: case for case in (*ANSWERED_CASES, *REFUSED_CASES)}
_WRITERS: Final = {"json": as_json, "junit": as_junit, "html": as_html}
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Options:
    """What to run, and where the reports go.

    :ivar proxy: the gateway's URL, without a slash at its end.
    :ivar timeout: seconds for each case.
    :ivar files: where to write which report, by its kind (``json``, ``junit``, ``html``).
    """

    proxy: str
    setting: Setting
    cases: tuple[Case, ...]
    timeout: float
    files: dict[str, Path]


def run(options: Options) -> int:
    """Run the demonstration and return its exit status: 0 if all passed, 1 if a case failed or the proxy could not be
    reached, 130 if it was interrupted. Runs the global reactor, which cannot be run again in the same process.

    :raises OSError: when what is found cannot be printed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A terminal of any encoding gets a report.
    status = _INTERRUPTED
    unwritable: list[OSError] = []

    async def main(reactor: DemoReactor) -> None:
        nonlocal status
        try:
            status = await demonstrate(reactor, options, Console(sys.stdout, sys.stdout.isatty()))
        except OSError as error:
            unwritable.append(error)  # A closed pipe, a full disk: not for `react`, which would print a traceback.

    try:
        task.react(main)
    except SystemExit as stop:
        if unwritable:
            raise unwritable[0] from None
        return int(stop.code or status)


async def demonstrate(reactor: DemoReactor, options: Options, console: Console) -> int:
    """Run the cases, write the reports, and return the exit status."""
    where = urlsplit(options.proxy)
    try:
        probe = await connectProtocol(HostnameEndpoint(reactor, str(where.hostname), where.port or 80), Protocol())
    except (ConnectError, DNSLookupError) as error:
        return _complain(f"cannot reach the proxy at {options.proxy}: {reason_of(error)}")
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
