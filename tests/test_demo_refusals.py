"""The demonstration's refusals: bad certificates that cannot be tried, and what is reported of those that can."""

from __future__ import annotations

from nitroproxy.demo.refusals import REFUSED_CASES
from nitroproxy.demo.results import Outcome
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES
from tests.test_demo_cases import TryCase


class RefusalTests(TryCase):
    """Those that pass and fail: `test_demo_cases`."""

    def test_one_for_each_certificate(self) -> None:
        """Every certificate that must be refused has its case, and every case says what it is about."""
        names = {case.name for case in REFUSED_CASES}
        self.assertLessEqual({f"refused_{name}" for name in BAD_CERTIFICATES}, names)
        self.assertTrue(all(case.title for case in REFUSED_CASES))

    async def test_an_unknown_bad_server_is_skipped(self) -> None:
        """A refusal that cannot be tried is skipped with the reason, and sends nothing."""
        result, fake = await self.try_case("refused_expired", upstream=None)
        self.assertEqual((result.outcome, fake.requests), (Outcome.SKIPPED, []))
        self.assertIn("--refusals expired=URL", result.detail)

    async def test_a_refused_case_shows_the_refusal(self) -> None:
        """The status of a refusal in the report is its own, not that of the look at the counters."""
        result, _ = await self.try_case("refused_self_signed")
        self.assertEqual((result.status, result.detail[:25]), (502, "502 tls_certificate_error"))
