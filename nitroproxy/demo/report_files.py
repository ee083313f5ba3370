"""The report for machines: JSON, and the XML that JUnit's readers take."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from xml.etree import ElementTree

from nitroproxy.demo.results import CaseResult, Outcome, Report, percentile

#: What XML 1.0 section 2.2 does not let a document hold, not even escaped.
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_JUNIT_ELEMENTS: Final = {Outcome.FAILED: "failure", Outcome.ERROR: "error", Outcome.SKIPPED: "skipped"}


def as_json(report: Report) -> str:
    """The report as a JSON document; it alone names the run's canary, for a search of captures and logs."""
    latencies = report.concurrent_latencies
    document: dict[str, Any] = {
        "succeeded": report.succeeded,
        "proxy": report.proxy,
        "target": report.target,
        "canary": report.canary,
        "started": report.started.isoformat(timespec="milliseconds"),
        "milliseconds": round(report.milliseconds, 3),
        "counts": {outcome.value: report.count(outcome) for outcome in Outcome},
        "concurrent": {"requests": len(latencies)}
        | (
            {f"p{percent}_milliseconds": round(percentile(latencies, percent), 3) for percent in (50, 90, 99)}
            if latencies
            else {}
        ),
        "cases": [_case(result) for result in report.results],
    }
    return json.dumps(document, indent=2) + "\n"


def _case(result: CaseResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "title": result.title,
        "result": result.outcome.value,
        "status": result.status,
        "milliseconds": round(result.milliseconds, 3),
        "bytes": result.size,
        "detail": result.detail,
    }


def as_junit(report: Report) -> str:
    """The report as a JUnit XML document: one suite, one test case a case."""
    counts = {
        "tests": str(len(report.results)),
        "failures": str(report.count(Outcome.FAILED)),
        "errors": str(report.count(Outcome.ERROR)),
        "skipped": str(report.count(Outcome.SKIPPED)),
        "time": _seconds(report.milliseconds),
    }
    suites = ElementTree.Element("testsuites", counts)
    started = report.started.replace(tzinfo=None).isoformat(timespec="seconds")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "nitroproxy.demo", "timestamp": started, **counts})
    for result in report.results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {"classname": "nitroproxy.demo", "name": result.name, "time": _seconds(result.milliseconds)},
        )
        detail = _NOT_XML.sub("\ufffd", result.detail)
        element = _JUNIT_ELEMENTS.get(result.outcome)
        if element is None:
            ElementTree.SubElement(case, "system-out").text = detail
        else:
            ElementTree.SubElement(case, element, {"message": detail})
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f}"
