"""Runs a stage's checks in the guest, one after the other, and tells the host how each went.

A check is a function: it returns a sentence on what it saw, or raises `Failed` or `Skipped`. Results are lines on
standard output, `MARK` and one JSON object each; whatever else is printed is log.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Final, Generic, Literal, TypeVar

#: What a line with a result begins with.
MARK: Final = "CHECK "

#: The name of the result that says that a stage has run to its end.
END: Final = "end"

Outcome = Literal["passed", "failed", "skipped"]
_Machine = TypeVar("_Machine")


@dataclass(frozen=True)
class Result:
    """How one check went.

    :ivar seconds: how long it took, in the guest's time.
    :ivar detail: what it saw, or why it failed.
    """

    name: str
    outcome: Outcome
    seconds: float
    detail: str


class Failed(Exception):
    """What was seen is not what must be; the message says how."""


class Skipped(Exception):
    """The check does not apply; the message says why."""


@dataclass(frozen=True)
class Check(Generic[_Machine]):
    """One check.

    :ivar limit: seconds that it may take.
    :ivar vital: without it the checks that follow it mean nothing, and are not tried.
    """

    function: Callable[[_Machine], str]
    limit: int = 30
    vital: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__


def report(result: Result) -> None:
    """Tell the host."""
    print(MARK + json.dumps(asdict(result)), flush=True)


def expect(what: str, seen: object, wanted: object) -> None:
    """Raise `Failed` unless *seen* equals *wanted*."""
    if seen != wanted:
        raise Failed(f"{what}: expected {wanted!r}, got {seen!r}")


def expect_in(what: str, part: str, whole: str) -> None:
    """Raise `Failed` unless *part* is somewhere in *whole*."""
    if part not in whole:
        raise Failed(f"{what}: expected {part!r} in {whole[-1000:]!r}")


def wait_until(what: str, seconds: float, condition: Callable[[], bool], pause: float = 0.1) -> float:
    """Wait until *condition* holds; the seconds that it took.

    :raises Failed: it did not within *seconds*.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return time.monotonic() - started


def run_checks(machine: _Machine, checks: Sequence[Check[_Machine]]) -> None:
    """Run all *checks* in order, each within its limit."""
    missing = ""
    for check in checks:
        if missing:
            report(Result(check.name, "failed", 0.0, f"not tried: {missing} failed"))
            continue
        result = _run(machine, check)
        report(result)
        if check.vital and result.outcome == "failed":
            missing = check.name


def _run(machine: _Machine, check: Check[_Machine]) -> Result:
    def expired(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {check.limit} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(check.limit)
    started = time.monotonic()
    outcome: Outcome = "passed"
    try:
        detail = check.function(machine)
    except Skipped as reason:
        outcome, detail = "skipped", str(reason)
    except Failed as failed:
        outcome, detail = "failed", str(failed)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        outcome, detail = "failed", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return Result(check.name, outcome, time.monotonic() - started, detail)
