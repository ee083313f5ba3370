"""`python -m tests.transparent`: run a command without proxy settings; or try the clients of the table, and the trials.

usage: python -m tests.transparent run COMMAND [ARGUMENT...]
       python -m tests.transparent test [WORD...]
       python -m tests.transparent packages

``run`` has the command's exit status. ``test`` tries every row and the trials that take less than a minute, or
those rows and trials whose name has one of the words. ``packages`` prints the Debian packages that are missing for it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.transparent import trials
from tests.transparent.servers import Servers, missing_packages
from tests.transparent.stack import Stack
from tests.transparent.table import LOGGED, ROWS, Table


def run(words: Sequence[str]) -> int:
    """Run a command inside, with this terminal; its exit status."""
    with Stack() as stack:
        process = subprocess.Popen(stack.inside(words), env=stack.environ())
        while True:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                continue  # The command has had it, too.
            return status if status >= 0 else 128 - status


class Report:
    """Prints how each thing went, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def tried(self, name: str, wrong: str, began: float) -> None:
        """Something has been tried; *wrong* says how it failed, if it did."""
        if wrong:
            self.failed += 1
        else:
            self.passed += 1
        print(f"{'FAILED' if wrong else 'ok':6} {time.monotonic() - began:6.1f} s  {name}", flush=True)
        for line in wrong.splitlines():
            print(f"           {line}", flush=True)


def test(words: Sequence[str]) -> int:
    """Try the rows, and the trials; 0 if all went well."""
    report = Report()
    rows = [row for row in ROWS if _wanted(row.name, words)]
    if rows:
        _try_rows(rows, report, whole=not words)
    for name, trial in {**trials.TRIALS, **(trials.LONG if words else {})}.items():
        if _wanted(name, words):
            began = time.monotonic()
            report.tried(name, _wrong(trial), began)
    print(f"{report.passed} passed, {report.failed} failed")
    return int(report.failed > 0)


def _wanted(name: str, words: Sequence[str]) -> bool:
    return not words or any(word.lower() in name.lower() for word in words)


def _try_rows(rows: Sequence[object], report: Report, *, whole: bool) -> None:
    with Stack() as stack:
        began = time.monotonic()
        Servers(stack).start_all()
        print(f"the servers are up after {time.monotonic() - began:.1f} s", flush=True)
        table = Table(stack)
        for row in ROWS:
            if row in rows:
                began = time.monotonic()
                report.tried(row.name, table.run(row), began)
        if whole:
            report.tried("the log names what was denied, and why", trials.not_logged(stack, LOGGED), time.monotonic())
            report.tried("health", trials.unhealthy(stack), time.monotonic())


def _wrong(trial: Callable[[], str]) -> str:
    try:
        return trial()
    except Exception as error:  # A trial that cannot be run is one that failed; the others go on.
        return f"{type(error).__name__}: {error}"


def main() -> int:
    """See the module."""
    match sys.argv[1:]:
        case ["run", *words] if words:
            return run(words[1:] if words[0] == "--" else words)
        case ["packages"]:
            print(*missing_packages(), sep="\n")
            return 0
        case ["test", *words]:
            return test(words)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
