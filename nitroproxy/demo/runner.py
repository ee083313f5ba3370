"""Runs the cases one after the other, each within a deadline. Those that cannot pass, because an earlier one found that
the target or the enclave cannot be reached, are not tried.

It knows neither what a case does nor how a result looks.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NoReturn
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, FirstError
from twisted.python.failure import Failure

from nitroproxy.demo.cases import Case, Setting, Skipped, Unexpected, Unreachable
from nitroproxy.demo.client import Client, Gateway, Traffic
from nitroproxy.demo.results import CaseResult, Outcome, Report


class Progress(Interface):
    """Is informed of a run's progress."""

    def started(self, number: int, total: int, case: Case) -> None: ...
    def finished(self, number: int, total: int, result: CaseResult) -> None: ...


async def run_cases(
    gateway: Gateway, cases: Sequence[Case], setting: Setting, timeout: float, progress: Progress
) -> Report:
    """Try all *cases* in order, each for at most *timeout* seconds."""
    started = datetime.datetime.now(datetime.UTC)
    first = gateway.reactor.seconds()
    results = []
    unreachable: Unreachable | None = None
    reached = False
    for number, case in enumerate(cases, 1):
        if unreachable is not None and (unreachable.enclave or case.needs_target(setting)):
            results.append(_not_tried(case, unreachable))
            continue
        progress.started(number, len(cases), case)
        result, found = await run_case(gateway, case, setting, timeout)
        progress.finished(number, len(cases), result)
        results.append(result)
        reached = reached or (result.outcome is Outcome.PASSED and case.needs_target(setting))
        # A target that has been reached has failed that case alone.
        if found is not None and (found.enclave or not reached):
            unreachable = found
    return Report(
        proxy=gateway.proxy,
        target=setting.target,
        canary=setting.canary,
        started=started,
        milliseconds=(gateway.reactor.seconds() - first) * 1000,
        results=tuple(results),
    )


async def run_case(
    gateway: Gateway, case: Case, setting: Setting, timeout: float
) -> tuple[CaseResult, Unreachable | None]:
    """Try one case for at most *timeout* seconds; every outcome becomes its result.

    :returns: the result, and what the case found to be unreachable, if that is why it failed.
    """
    traffic = Traffic()
    started = gateway.reactor.seconds()
    found: list[Unreachable] = []

    async def attempt() -> str:
        return await case.try_it(Client(gateway, traffic), setting)

    def passed(detail: str) -> tuple[Outcome, str]:
        return Outcome.PASSED, detail

    def failed(failure: Failure) -> tuple[Outcome, str]:
        error = failure.value.subFailure.value if isinstance(failure.value, FirstError) else failure.value
        if isinstance(error, Unreachable):
            found.append(error)
        return _verdict(failure)

    within = Deferred.fromCoroutine(attempt()).addTimeout(timeout, gateway.reactor, _expired)
    outcome, detail = await within.addCallbacks(passed, failed)
    result = CaseResult(
        name=case.name,
        title=case.title,
        outcome=outcome,
        status=traffic.status,
        milliseconds=(gateway.reactor.seconds() - started) * 1000,
        size=traffic.size,
        detail=detail,
        latencies=tuple(traffic.latencies),
    )
    return result, found[0] if found and (found[0].enclave or case.needs_target(setting)) else None


def _not_tried(case: Case, unreachable: Unreachable) -> CaseResult:
    what = "enclave" if unreachable.enclave else "target"
    detail = f"not tried, as the {what} cannot be reached"
    return CaseResult(case.name, case.title, Outcome.SKIPPED, None, 0.0, 0, detail, not_tried=True)


def _expired(cancelled: object, timeout: float) -> NoReturn:
    # The failure of a cancelled request depends on how far the request had got.
    raise TimeoutError(f"not done within {timeout:g} s")


def _verdict(failure: Failure) -> tuple[Outcome, str]:
    error = failure.value
    match error:
        case FirstError():
            return _verdict(error.subFailure)
        case Unexpected():
            return Outcome.FAILED, str(error)
        case Unreachable():
            what = "enclave" if error.enclave else "target"
            return Outcome.ERROR, f"the {what} cannot be reached: {error}"
        case Skipped():
            return Outcome.SKIPPED, str(error)
        case TimeoutError():
            return Outcome.ERROR, str(error)
    return Outcome.ERROR, describe(failure)


def describe(failure: Failure) -> str:
    """*failure* in one line: its type, and its message or those of the failures that it stands for."""
    reasons = [reason for reason in getattr(failure.value, "reasons", []) if isinstance(reason, Failure)]
    message = "; ".join(map(describe, reasons)) or " ".join(failure.getErrorMessage().split())
    name = type(failure.value).__name__
    return f"{name}: {message}" if message else name
