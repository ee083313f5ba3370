"""How the demonstration's cases are run: each to its end, one after the other."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.demo.cases import Case, Setting, Unreachable
from nitroproxy.demo.client import Client, Gateway
from nitroproxy.demo.results import CaseResult, Outcome
from nitroproxy.demo.runner import describe, run_cases
from tests.test_demo_cases import CANARY, CASES, LOCAL, TARGET, FakeGateway, TryCase, reactor, serve


class Seen:
    """Notes the progress of a run."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str]] = []

    def started(self, number: int, total: int, case: Case) -> None:
        """A case begins."""
        self.seen.append((number, total, case.name))

    def finished(self, number: int, total: int, result: CaseResult) -> None:
        """It has ended."""
        self.seen.append((number, total, result.outcome.name))


class RunTests(TryCase):
    """Runs against a gateway of the test's."""

    async def test_a_case_ends_at_its_deadline(self) -> None:
        """A case whose answer never ends is an error that says so, and keeps what it had seen by then."""
        result, _ = await self.try_case("streaming", "answers never end", timeout=0.1)
        self.assertEqual((result.outcome, result.status, result.size), (Outcome.ERROR, 200, 1))
        self.assertEqual(result.detail, "not done within 0.1 s")

    async def test_after_a_dead_target(self) -> None:
        """When the first case finds that the target cannot be reached, those that need it are not tried."""
        fake = FakeGateway("the target is dead")
        gateway = Gateway(reactor, serve(self, fake))
        self.addCleanup(gateway.close)
        seen = Seen()
        cases = [CASES[name] for name in ("get", "json_api", "denied_port")]
        report = await run_cases(gateway, cases, Setting(TARGET, LOCAL, {}, CANARY), 30, seen)
        self.assertEqual(
            [result.outcome for result in report.results], [Outcome.ERROR, Outcome.SKIPPED, Outcome.PASSED]
        )
        self.assertEqual(seen.seen, [(1, 3, "get"), (1, 3, "ERROR"), (3, 3, "denied_port"), (3, 3, "PASSED")])
        self.assertEqual(len(fake.requests), 2)

    async def test_a_moments_failure(self) -> None:
        """When a case has reached the target, a later one that does not is a failure of its own."""

        async def good(client: Client, setting: Setting) -> str:
            return "reached"

        async def bad(client: Client, setting: Setting) -> str:
            raise Unreachable("504 connection_timeout", enclave=False)

        gateway = Gateway(reactor, "http://127.0.0.1:1")
        self.addCleanup(gateway.close)
        cases = [Case("a", good), Case("b", bad), Case("c", good)]
        report = await run_cases(gateway, cases, Setting(TARGET, LOCAL, {}, CANARY), 30, Seen())
        outcomes = [result.outcome for result in report.results]
        self.assertEqual(outcomes, [Outcome.PASSED, Outcome.ERROR, Outcome.PASSED])


class DescribeTests(SynchronousTestCase):
    """A failure in one line."""

    def test_lines(self) -> None:
        """Its type and its message; white space does not break the line."""
        for error, line in (
            (ValueError("one\n  two"), "ValueError: one two"),
            (ValueError(), "ValueError"),
        ):
            self.assertEqual(describe(Failure(error)), line)
