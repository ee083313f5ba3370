"""benchmarks.wrk: reading the summary that wrk prints."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Unmeasured
from benchmarks.wrk import Outcome, parse

_LINE = '{{"requests":{requests},"us":2000000,"bytes":1,"status":{status},"socket":{socket},"p50":1500.5,"p99":9000}}'


def output(requests: int = 1000, status: int = 0, socket: int = 0) -> str:
    return "Running 2s test\n\n" + _LINE.format(requests=requests, status=status, socket=socket) + "\n"


class ParseTests(SynchronousTestCase):
    """Its output."""

    def test_figures(self) -> None:
        """Seconds and milliseconds from microseconds."""
        self.assertEqual(parse(output()), Outcome(1000, 2.0, 1.5005, 9.0))

    def test_no_summary(self) -> None:
        """If wrk printed something else, that is the reason."""
        with self.assertRaisesRegex(Unmeasured, "unable to connect"):
            parse("unable to connect to 127.0.0.1:1 Connection refused")

    def test_failures(self) -> None:
        """A run with error answers, or with none at all, has no figures."""
        for bad in (output(status=3), output(socket=1), output(requests=0)):
            with self.assertRaises(Unmeasured):
                parse(bad)

    def test_server_that_just_closes(self) -> None:
        """For a contender that closes its connection after each answer that is no failure; more closes than answers
        are."""
        self.assertEqual(parse(output(socket=1000), closes=True).requests, 1000)
        with self.assertRaises(Unmeasured):
            parse(output(socket=1001), closes=True)
