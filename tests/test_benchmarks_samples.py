"""benchmarks.samples: from sampled stacks to shares."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.samples import Cost, costs, report

_LOOP = "<module> (twistd:1);mainLoop (twisted/internet/base.py:690)"
_READ = f"{_LOOP};Downstream.dataReceived (nitroproxy/proxy/downstream.py:95)"
STACKS = [
    f"{_READ} 10",
    f"{_READ};Reader.read_head (nitroproxy/http1/reader.py:214);list_append (libpython3.11.so.1.0) 20",
    f"{_LOOP};doWrite (twisted/internet/abstract.py:271);send (libc.so.6) 40",
    f"{_LOOP};send (OpenSSL/SSL.py:1);SSL_write (_rust.abi3.so) 10",
    f"{_LOOP};doPoll (twisted/internet/epollreactor.py:215);epoll_wait (libc.so.6) 20",
    "run (threading.py:3);Condition.wait (threading.py:320) 900",
]


def by_name(found: list[Cost]) -> dict[str, Cost]:
    return {cost.name: cost for cost in found}


class CostTests(SynchronousTestCase):
    """Artificial stacks."""

    def test_own_and_total(self) -> None:
        """The interpreter's work counts for its function; a caller's total includes its callees."""
        found = by_name(costs(STACKS))
        read = found["Reader.read_head (nitroproxy/http1/reader.py)"]
        self.assertEqual((read.group, round(read.own, 3), round(read.total, 3)), ("nitroproxy", 0.2, 0.2))
        received = found["Downstream.dataReceived (nitroproxy/proxy/downstream.py)"]
        self.assertEqual((round(received.own, 3), round(received.total, 3)), (0.1, 0.3))

    def test_groups(self) -> None:
        """System calls and OpenSSL are counted apart from the code that calls them."""
        found = by_name(costs(STACKS))
        self.assertEqual((found["send()"].group, round(found["send()"].own, 3)), ("system calls", 0.4))
        self.assertEqual(found["OpenSSL and its wrapper"].group, "OpenSSL")

    def test_waiting_threads(self) -> None:
        """Waiting threads of a pool are not counted: the shares are of the rest."""
        self.assertAlmostEqual(sum(cost.own for cost in costs(STACKS)), 1.0)
        self.assertFalse(any("Condition" in cost.name for cost in costs(STACKS)))

    def test_waiting_for_events(self) -> None:
        """A process that ran nine tenths of the time waited in epoll_wait() for the other tenth."""
        found = by_name(costs(STACKS, busy=0.9))
        self.assertAlmostEqual(found["epoll_wait()"].own, 10 / 90)
        self.assertAlmostEqual(found["send()"].own, 40 / 90)
        self.assertAlmostEqual(sum(cost.own for cost in found.values()), 1.0)

    def test_system_time(self) -> None:
        """All system calls together take the share that the kernel reports; the rest share the remainder."""
        found = costs(STACKS, system=0.3)
        self.assertAlmostEqual(sum(cost.own for cost in found if cost.group == "system calls"), 0.3)
        self.assertAlmostEqual(by_name(found)["send()"].own, 0.2)
        self.assertAlmostEqual(by_name(found)["OpenSSL and its wrapper"].own, 0.7 * 10 / 40)
        self.assertAlmostEqual(sum(cost.own for cost in found), 1.0)

    def test_dearest_first(self) -> None:
        """Functions are in the order of their own time."""
        self.assertEqual(costs(STACKS)[0].name, "send()")

    def test_report(self) -> None:
        """Shares of the CPU time of one unit of work, in µs."""
        text = report(costs(STACKS), 50.0, 1)
        self.assertRegex(text, r"system calls +60% +30\.0")
        self.assertRegex(text, r"send\(\) +40\.0% +20\.0 +20\.0")
        self.assertNotIn("read_head", text)
