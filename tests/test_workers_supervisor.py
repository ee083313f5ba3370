"""The supervisor: workers started, asked, stopped. One of them by itself: `test_workers_worker_process`; how they are
reloaded: `test_workers_supervisor_reload`."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred

from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import merge
from nitroproxy.telemetry.packing import unpack
from nitroproxy.workers.supervisor import CannotStart, Supervised
from nitroproxy.workers.worker import WorkerStart
from tests.pair import values
from tests.supervisors import SupervisorCase


class SupervisorTests(SupervisorCase):
    """Two workers."""

    def test_start(self) -> None:
        """The daemon is ready when the last worker is up; each is given the configuration and the sockets' names."""
        self.starting = self.supervisor.start()
        self.worker(1).pair.carry()
        self.assertNoResult(self.starting)
        self.spawn.carry()
        self.successResultOf(self.starting)
        self.assertEqual(self.spawn.started, [1, 2])
        self.assertEqual(self.worker(2).start, WorkerStart(b"{}", 2, ["a", "b"], b"key"))
        self.assertEqual(self.told("worker_started"), [1, 2])

    def test_lines_about_workers(self) -> None:
        """The supervisor's lines about a worker do not look as if the worker had written them (K6)."""
        self.up()
        self.spawn.die(1)
        self.assertTrue(self.events)
        self.assertFalse([event for event in self.events if "worker" in event])

    def test_cannot_start(self) -> None:
        """A worker that ends before the daemon is ready ends it, and is named."""
        self.starting = self.supervisor.start()
        self.spawn.die(2, "ended with status 1")
        failure = self.failureResultOf(self.starting, CannotStart)
        self.assertEqual(str(failure.value), "nitroproxy-test: worker 2 cannot start: it ended with status 1")

    def test_no_process_at_the_start(self) -> None:
        """When the first start finds no process or no descriptors, the daemon says so and starts no further worker."""
        self.spawn.errors = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))]
        failure = self.failureResultOf(self.supervisor.start(), CannotStart)
        self.assertIn("worker 1 cannot start: it has no process: Resource temporarily unavailable", str(failure.value))
        self.assertEqual(self.spawn.started, [1])

    def test_no_process_later(self) -> None:
        """A start that fails for want of processes or descriptors is tried again until it succeeds (K6)."""
        self.up()
        self.spawn.errors = [
            BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
            OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
            ValueError("odd"),
        ]
        self.spawn.die(1)
        self.pass_time(3)
        self.assertEqual(self.spawn.started, [1, 2, 1, 1, 1, 1])
        self.assertEqual(self.told("worker_started"), [1, 2, 1])
        reasons = [event["how"] for event in self.events if event["event"] == "worker_ended"]
        self.assertIn("has no process: Too many open files", reasons)
        self.assertIn("has no process: ValueError('odd')", reasons)

    def test_given_up(self) -> None:
        """Ten failed starts in a row end the daemon; before, each comes later than the one before (K6)."""
        self.up()
        self.spawn.errors = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 99
        self.spawn.die(1)
        self.pass_time(60)
        self.assertEqual((self.spawn.started[2:], self.given_up), ([1] * 10, 1))
        self.assertEqual(self.told("worker_given_up"), [1])
        self.pass_time(60)
        self.spawn.die(2)
        self.pass_time(60)
        self.assertEqual((len(self.spawn.started), self.given_up), (12, 1), "after that no worker is started")

    def crash(self, number: int, times: int) -> None:
        """Let *number* end, then end that many of its starts before it answers."""
        self.spawn.die(number)
        for _ in range(times):
            started = self.spawn.started.count(number)
            while self.spawn.started.count(number) == started:
                self.clock.advance(0.1)
            self.spawn.die(number, "ended with status 1")

    def test_not_given_up(self) -> None:
        """While a worker serves and a new daemon would not start either, the daemon goes on and says why."""
        self.up()
        self.obstacle = "tls.ca_file: holds no certificate"
        self.crash(1, 12)
        self.assertEqual((self.given_up, self.told("worker_given_up")), (0, []))
        problems = [event["problem"] for event in self.events if event["event"] == "worker_obstacle"]
        self.assertEqual(problems, [self.obstacle] * 3)
        self.pass_time(6)
        self.assertEqual(self.told("worker_started"), [1, 2, 1], "it is started when it can be")
        self.spawn.die(2)
        self.crash(1, 10)
        self.assertEqual((self.given_up, self.told("worker_given_up")), (1, [1]), "no worker serves")

    def test_no_descriptors_to_examine(self) -> None:
        """A supervisor that can make no process gives up whatever it finds wrong with the files."""
        self.up()
        self.obstacle = "the configuration: Too many open files"
        self.spawn.errors = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 99
        self.spawn.die(1)
        self.pass_time(60)
        self.assertEqual((self.given_up, self.told("worker_given_up")), (1, [1]))

    def test_crash_loop(self) -> None:
        """Processes that start and end before they answer count as failed starts; one that answers ends the row."""
        self.up()
        self.spawn.die(1)
        for failures in (9, 10):
            for _ in range(failures):
                started = len(self.spawn.started)
                while len(self.spawn.started) == started:
                    self.clock.advance(0.1)
                self.spawn.die(1, "ended with status 1")
            if failures == 9:
                self.assertEqual(self.given_up, 0)
                self.pass_time(6)
                self.assertEqual(self.told("worker_started"), [1, 2, 1])
                self.spawn.die(1)
        self.assertEqual(self.given_up, 1)

    def test_restarted_with_what_is_in_force(self) -> None:
        """A worker that is started again has the configuration that is in force by then."""
        self.up()
        self.configuration = b"newer"
        self.spawn.die(1)
        self.pass_time(0.2)
        self.assertEqual(self.worker(1).start.configuration, b"newer")

    def test_metrics(self) -> None:
        """Each process's counts stand beside the others', told apart by the label worker; nothing is added up (K6)."""
        self.up()
        self.worker(1).count, self.worker(2).count = 5, 7
        found = self.scrape()
        self.assertEqual(found["nitroproxy_requests_total", "1"], 5)
        self.assertEqual(found["nitroproxy_requests_total", "2"], 7)
        self.assertNotIn(("nitroproxy_requests_total", ""), found)
        self.assertIn(("process_cpu_seconds_total", "supervisor"), found)
        for name in ("1", "2", "supervisor"):
            self.assertEqual(found["nitroproxy_worker_up", name], 1)
        self.assertEqual([key for key in found if not key[1]], [], "every series names its process")

    def test_died_during_a_scrape(self) -> None:
        """A worker that dies while it is asked is missing from that scrape, and nothing is counted twice (K6: 207, then
        107)."""
        self.up()
        self.worker(1).count, self.worker(2).count = 100, 7
        self.scrape()
        self.worker(1).pair.stuck = True
        asked = Deferred.fromCoroutine(self.supervisor.metrics())
        self.spawn.carry()
        self.spawn.die(1)
        answers: Any = self.successResultOf(asked)
        found = values(merge(family for answer in answers for family in unpack(answer)))
        requests = {worker: count for (name, worker), count in found.items() if name == "nitroproxy_requests_total"}
        self.assertEqual(requests, {"2": 7})
        self.assertEqual(found["nitroproxy_worker_up", "1"], 0)
        self.pass_time(0.2)
        self.assertEqual(self.scrape()["nitroproxy_requests_total", "1"], 0)
        self.assertEqual(self.scrape()["nitroproxy_worker_restarts_total", "1"], 1)

    def test_silent_worker(self) -> None:
        """A worker that does not answer is a metric and delays the others by half a second."""
        self.up()
        self.worker(2).pair.stuck = True
        asked = Deferred.fromCoroutine(self.supervisor.metrics())
        self.spawn.carry()
        self.assertNoResult(asked)
        self.pass_time(0.6)
        answers: Any = self.successResultOf(asked)
        found = values(merge(family for answer in answers for family in unpack(answer)))
        self.assertEqual((found["nitroproxy_worker_up", "1"], found["nitroproxy_worker_up", "2"]), (1, 0))

    def test_asked_by_a_worker(self) -> None:
        """A worker gets from the supervisor which workers answer, and what all processes count."""
        self.up()
        workers = self.worker(1).mine.ask("workers")
        metrics = self.worker(1).mine.ask("metrics")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(workers), {"1": True, "2": True})
        self.assertEqual(len(self.successResultOf(metrics)), 3)

    def test_supervised(self) -> None:
        """The supervisor's own pages have what a worker's have: the counts of all, and whether all answer."""
        supervised = Supervised(lambda: self.supervisor)
        self.up()
        self.worker(1).count = 5
        found = values(self.done(supervised.metrics()))
        self.assertEqual(found["nitroproxy_requests_total", "1"], 5)
        self.assertEqual(self.done(supervised.check()), Check("pass", "2 answer"))
        self.worker(2).pair.stuck = True
        asked = Deferred.fromCoroutine(supervised.check())
        self.pass_time(0.6)
        self.assertEqual(self.successResultOf(asked), Check("warn", "of 2 workers these do not answer: 2"))

    def test_ask_serving(self) -> None:
        """What serves in each worker can be asked; one that does not answer is left out."""
        self.up()
        self.assertEqual(self.done(self.supervisor.ask_serving("name")), ["worker 1", "worker 2"])
        self.spawn.die(1)
        self.assertEqual(self.done(self.supervisor.ask_serving("name")), ["worker 2"])

    def test_accepting(self) -> None:
        """The daemon accepts at a place while a worker is up that does: without any it does not, however they ended
        (K6)."""
        self.assertFalse(self.supervisor.accepting(0), "before the start")
        self.up()
        self.worker(1).places[0].accepting = self.worker(2).places[0].accepting = False
        self.pass_time(1.1)
        self.assertEqual((self.supervisor.accepting(0), self.supervisor.accepting(1)), (False, True))
        self.worker(2).places[0].accepting = True
        self.pass_time(1.1)
        self.assertTrue(self.supervisor.accepting(0), "one of them is enough: the other is replaced if it stays deaf")
        self.spawn.errors = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 99
        self.spawn.die(1)
        self.assertTrue(self.supervisor.accepting(0))
        self.spawn.die(2)
        self.assertFalse(self.supervisor.accepting(0), "a total outage")

    def test_forgotten(self) -> None:
        """The connections of a worker that has died count no more in the memory that the workers share (K6)."""
        self.up()
        self.spawn.die(2)
        self.assertEqual(set(self.forgotten), {1})

    def test_close_idle(self) -> None:
        """What one worker was asked by a page of its own reaches all."""
        self.up()
        asked = self.worker(1).mine.ask("close_idle")
        self.spawn.carry()
        self.successResultOf(asked)
        self.assertEqual([self.worker(number).idle_closed for number in (1, 2)], [1, 1])

    def test_connections(self) -> None:
        """Those of all workers are added up."""
        self.up()
        self.assertEqual(self.supervisor.connections(0), 6)

    def test_share(self) -> None:
        """What the daemon shares goes to all workers; one that does not take it is replaced by a process that begins
        with it."""
        self.up()
        self.done(self.supervisor.share(b"one"))
        self.assertEqual([self.worker(number).taken for number in (1, 2)], [[b"one"], [b"one"]])
        self.worker(2).pair.stuck = True
        sharing = self.supervisor.share(b"two")
        self.pass_time(9)
        self.assertNoResult(sharing)
        self.pass_time(2)
        self.successResultOf(sharing)
        self.assertEqual(self.told("worker_killed"), [2])
        self.spawn.die(2)
        self.done(self.supervisor.share(b"three"))
        self.assertEqual(self.worker(1).taken, [b"one", b"two", b"three"])

    def test_stop(self) -> None:
        """A place stops in all workers, and is complete when it is in all; no worker is started after that."""
        self.up()
        self.assertTrue(self.done(self.supervisor.stop(0, 9.0)))
        self.assertEqual([self.worker(number).places[0].done for number in (1, 2)], [[9.0], [9.0]])
        self.worker(1).places[1].complete = False
        self.assertFalse(self.done(self.supervisor.stop(1, 9.0)))
        self.spawn.die(2)
        self.pass_time(10)
        self.assertEqual(self.spawn.started, [1, 2])

    def test_died_before_the_drain(self) -> None:
        """A worker that died just before SIGTERM is not started again during the drain."""
        self.up()
        self.spawn.die(1)
        stopping = Deferred.fromCoroutine(self.supervisor.stop(0, 9.0))
        self.pass_time(10)
        self.assertTrue(self.successResultOf(stopping), "the worker that is left has drained")
        self.assertEqual(self.spawn.started, [1, 2])

    def test_stopped_during_the_start(self) -> None:
        """A worker that ends because the daemon is stopped while it starts is no failed start (K6)."""
        self.starting = self.supervisor.start()
        stopping = Deferred.fromCoroutine(self.supervisor.stop(0, 9.0))
        self.spawn.die(1, "was killed by signal 15")
        self.spawn.carry()
        self.assertNoResult(self.starting)
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual((self.told("worker_ended"), self.given_up), ([], 0))

    def test_died_while_draining(self) -> None:
        """A worker that dies during the drain has not drained."""
        self.up()
        self.worker(2).pair.stuck = True
        stopping = Deferred.fromCoroutine(self.supervisor.stop(0, 9.0))
        self.spawn.carry()
        self.spawn.die(2)
        self.assertFalse(self.successResultOf(stopping))

    def test_abort(self) -> None:
        """All end their connections at once. A worker that hangs is killed: the drain would go on waiting for it."""
        self.up()
        self.worker(2).pair.stuck = True
        stopping = Deferred.fromCoroutine(self.supervisor.stop(0, 30.0))
        self.supervisor.abort(0)
        self.spawn.carry()
        self.assertEqual(self.worker(1).places[0].done, [30.0, "abort"])
        self.assertFalse(self.worker(2).pair.ends[0].disconnecting)
        self.clock.advance(1.1)
        self.assertTrue(self.worker(2).pair.ends[0].disconnecting)
        self.spawn.die(2)
        self.assertFalse(self.successResultOf(stopping))
        self.assertEqual(self.told("worker_killed"), [2])

    def test_end(self) -> None:
        """All are told to end, and waited for; one that does not is killed."""
        self.up()
        self.worker(2).pair.stuck = True
        ending = self.supervisor.end()
        self.spawn.carry()
        self.assertTrue(self.worker(1).ended)
        self.spawn.die(1, "ended with status 0")
        self.assertNoResult(ending)
        self.pass_time(3.1)
        self.assertTrue(self.worker(2).pair.ends[0].disconnecting)
        self.spawn.die(2)
        self.successResultOf(ending)
        self.assertEqual(self.told("worker_ended"), [])
