"""The demonstration's results and its four reports."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.demo.cases import ANSWERED_CASES
from nitroproxy.demo.report_files import as_json, as_junit
from nitroproxy.demo.report_html import as_html
from nitroproxy.demo.report_text import Console, table
from nitroproxy.demo.results import CaseResult, Outcome, Report, percentile

HOSTILE = '<script>alert("x")</script> & \' \x00\x1b[31m\ufffe\ud800 ]]> \n${summary} $rows'


def result(name: str, outcome: Outcome = Outcome.PASSED, detail: str = "seen", *latencies: float) -> CaseResult:
    """A case's result that differs in what a test is about."""
    status = None if outcome is Outcome.SKIPPED else 200
    return CaseResult(name, "A title.", outcome, status, 12.34, 1234, detail, latencies)


def report(*results: CaseResult) -> Report:
    """A report on *results*."""
    started = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    return Report("http://127.0.0.1:8080", "https://httpbin.test", "canary-1", started, 1500.0, results)


ALL = report(
    result("good"),
    result("many", Outcome.PASSED, "seen", 30.0, 10.0, 20.0),
    result("bad", Outcome.FAILED, HOSTILE),
    result("lost", Outcome.ERROR, "ConnectionLost"),
    result("untried", Outcome.SKIPPED, "no server"),
)


class ResultsTests(SynchronousTestCase):
    """The arithmetic."""

    def test_percentiles_are_nearest_ranks(self) -> None:
        """A percentile is a value that was measured, at the nearest rank."""
        hundred = [float(number) for number in range(1, 101)]
        self.assertEqual([percentile(hundred, percent) for percent in (50, 90, 99, 100)], [50.0, 90.0, 99.0, 100.0])
        self.assertEqual([percentile([7.0], percent) for percent in (1, 50, 100)], [7.0, 7.0, 7.0])

    def test_success_needs_a_pass_and_no_failure(self) -> None:
        """A run succeeds if something passed and nothing failed; to skip everything is no success."""
        passed, failed = result("a"), result("b", Outcome.FAILED)
        lost, skipped = result("c", Outcome.ERROR), result("d", Outcome.SKIPPED)
        self.assertEqual(
            [report(*some).succeeded for some in ((passed, skipped), (passed, failed), (passed, lost), (skipped,), ())],
            [True, False, False, False, False],
        )

    def test_percentiles_need_all_of_the_requests(self) -> None:
        """The durations of a case that failed are not shown as if they were those of all its requests."""
        self.assertEqual(report(result("many", Outcome.PASSED, "", 2.0, 1.0)).concurrent_latencies, (1.0, 2.0))
        self.assertEqual(report(result("many", Outcome.FAILED, "", 1.0)).concurrent_latencies, ())

    def test_not_tried_is_one_row(self) -> None:
        """Neighbours that were not tried for one reason are one row; those skipped for reasons of their own are not."""
        blocked = [replace(result(name, Outcome.SKIPPED, "no target"), not_tried=True) for name in ("b", "c", "d")]
        alone = [result(name, Outcome.SKIPPED, "no server") for name in ("e", "f")]
        rows = report(result("a"), *blocked, *alone, blocked[0]).rows
        self.assertEqual([row.name for row in rows], ["a", "b … d", "e", "f", "b"])
        self.assertEqual(rows[1].title, "3 cases.")

    def test_the_summary_shows_what_was_skipped(self) -> None:
        """The summary counts each outcome by itself."""
        self.assertEqual(ALL.summary, "2 passed, 1 failed, 1 error, 1 skipped")


class ConsoleTests(SynchronousTestCase):
    """What a person sees while it runs and at the end."""

    def test_a_file_gets_one_line_a_case(self) -> None:
        """Without a terminal there is a line for each finished case and no control sequence."""
        stream = io.StringIO()
        console = Console(stream, interactive=False)
        console.started(1, 2, ANSWERED_CASES[0])
        console.finished(1, 2, result("get"))
        self.assertEqual(stream.getvalue(), "[1/2] get: passed in 12 ms\n")

    def test_a_terminal_sees_the_running_case(self) -> None:
        """On a terminal the running case is shown and its line is overwritten by the result."""
        stream = io.StringIO()
        console = Console(stream, interactive=True)
        console.started(1, 2, ANSWERED_CASES[0])
        console.finished(1, 2, result("get"))
        self.assertEqual(stream.getvalue(), "\r\x1b[K[1/2] get …\r\x1b[K[1/2] get: passed in 12 ms\n")

    def test_the_table_has_a_row_a_case(self) -> None:
        """The table has all columns aligned and each case on one line, whatever its detail holds."""
        lines = table(ALL.results)
        self.assertEqual(len(lines), 2 + len(ALL.results))
        self.assertEqual(lines[0].split(), ["case", "result", "status", "ms", "bytes", "detail"])
        self.assertEqual(lines[2], "good     passed      200  12.3   1234  seen")
        self.assertEqual(lines[6], "untried  skipped       -  12.3   1234  no server")
        self.assertTrue(all(line.isprintable() for line in lines))

    def test_the_report_ends_with_the_counts(self) -> None:
        """The last lines give the percentiles of the concurrent requests and the counts."""
        stream = io.StringIO()
        Console(stream, interactive=False).report(ALL)
        self.assertEqual(
            stream.getvalue().splitlines()[-2:],
            ["3 concurrent requests: p50 20 ms, p90 30 ms, p99 30 ms", f"{ALL.summary} in 1.5 s"],
        )


class JSONTests(SynchronousTestCase):
    """The report for programs."""

    def test_it_holds_counts_cases_and_the_canary(self) -> None:
        """The JSON names every case with its outcome, the percentiles and the run's canary."""
        document = json.loads(as_json(ALL))
        self.assertEqual((document["succeeded"], document["canary"]), (False, "canary-1"))
        self.assertEqual(document["counts"], {"passed": 2, "failed": 1, "error": 1, "skipped": 1})
        self.assertEqual(document["concurrent"]["p50_milliseconds"], 20.0)
        self.assertEqual([case["result"] for case in document["cases"]], [case.outcome.value for case in ALL.results])
        self.assertEqual(document["cases"][2]["detail"], HOSTILE)

    def test_it_needs_no_concurrent_case(self) -> None:
        """A run without the concurrent case has no percentiles."""
        self.assertEqual(json.loads(as_json(report(result("get"))))["concurrent"], {"requests": 0})


class JUnitTests(SynchronousTestCase):
    """The report for continuous integration."""

    def test_it_counts_and_names_each_outcome(self) -> None:
        """The XML parses, counts failures, errors and skips, and marks the cases that were not passed."""
        suite = ElementTree.fromstring(as_junit(ALL).encode())[0]
        counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")]
        self.assertEqual(counts, ["5", "1", "1", "1", "1.500"])
        marks = [[child.tag for child in case] for case in suite]
        self.assertEqual(marks, [["system-out"], ["system-out"], ["failure"], ["error"], ["skipped"]])

    def test_what_xml_cannot_hold_is_replaced(self) -> None:
        """Characters that XML forbids become U+FFFD; the others of a hostile detail survive."""
        message = ElementTree.fromstring(as_junit(ALL).encode())[0][2][0].get("message", "")
        self.assertTrue(
            message.startswith('<script>alert("x")</script> & \' \ufffd\ufffd[31m\ufffd\ufffd ]]>'), message
        )


class _Page(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


class HTMLTests(SynchronousTestCase):
    """The report for a person."""

    def test_a_hostile_detail_stays_text(self) -> None:
        """Markup and template marks in an answer's words are shown as they are and become neither tag nor value."""
        page = _Page(as_html(ALL))
        self.assertNotIn("script", page.tags)
        self.assertIn('<script>alert("x")</script> & \'', page.text)
        self.assertIn("${summary} $rows", page.text)

    def test_it_loads_nothing(self) -> None:
        """The page refers to no other resource, and its policy would forbid it."""
        page = _Page(as_html(ALL))
        self.assertEqual({"src", "href", "srcset", "data"} & {name for name, _ in page.attributes}, set())
        self.assertNotIn("url(", as_html(ALL))
        self.assertIn(("content", "default-src 'none'; style-src 'unsafe-inline'"), page.attributes)

    def test_it_can_be_written_whatever_a_detail_holds(self) -> None:
        """Half a surrogate pair, which JSON of a hostile answer can hold, does not keep the page from being written."""
        self.assertIn("[31m\ufffe?", as_html(ALL).encode().decode())

    def test_it_draws_a_bar_for_each_tried_case_and_each_latency(self) -> None:
        """The charts have a bar for each case that was tried and one for each concurrent request."""
        self.assertEqual(_Page(as_html(ALL)).tags.count("rect"), 4 + 3)

    def test_failures_come_first(self) -> None:
        """The failures are the first rows, and the cases stand before the charts."""
        text = _Page(as_html(ALL)).text
        order = [
            text.index(word)
            for word in ("badA title", "lostA title", "goodA title", "concurrent requests", "Time per case")
        ]
        self.assertEqual(order, sorted(order))

    def test_it_fits_a_narrow_screen(self) -> None:
        """Below 600 px each case is a card, whose values carry the names of the columns."""
        page = as_html(ALL)
        self.assertIn("@media (max-width: 600px)", page)
        self.assertEqual([name for name, _ in _Page(page).attributes].count("data-label"), 3 * len(ALL.rows))

    def test_it_fits_light_and_dark_screens(self) -> None:
        """The page names both colour schemes."""
        page = as_html(ALL)
        self.assertIn("color-scheme: light dark", page)
        self.assertIn("@media (prefers-color-scheme: dark)", page)

    def test_a_run_without_times_has_a_page(self) -> None:
        """A run in which everything was skipped still gives a page."""
        self.assertIn("1 skipped", _Page(as_html(report(result("a", Outcome.SKIPPED)))).text)
