"""A configuration put in force in every process, or in none."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from nitroproxy.workers.channel import NoAnswer
from tests.supervisors import SupervisorCase


class ReloadTests(SupervisorCase):
    """Two workers."""

    def reload(self, configuration: bytes) -> Deferred[list[str]]:
        """Begin to put a configuration in force."""

        def commit() -> None:
            self.configuration = configuration

        return Deferred.fromCoroutine(self.supervisor.reload(configuration, commit))

    def reloaded(self) -> list[list[bytes]]:
        """What each worker has put in force."""
        return [self.worker(number).reloaded for number in (1, 2)]

    def test_reload(self) -> None:
        """A configuration goes to all workers, and is in force nowhere when one of them refuses it."""
        self.up()
        reloading = self.reload(b"new")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertEqual(self.reloaded(), [[b"new"], [b"new"]])
        self.worker(2).refuses = "tls.ca_file: holds no certificate"
        reloading = self.reload(b"newer")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), ["worker 2: tls.ca_file: holds no certificate"])
        self.assertEqual((self.reloaded(), self.configuration), ([[b"new"], [b"new"]], b"new"))
        committing = self.worker(1).supervisors.ask("commit")
        self.spawn.carry()
        self.failureResultOf(committing, NoAnswer)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1, "it has forgotten what it had prepared")
        self.spawn.die(2)
        reloading = self.reload(b"last")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), [], "one that is started again begins with it")
        self.pass_time(0.2)
        self.assertEqual(self.worker(2).start.configuration, b"last")

    def test_none_before_all(self) -> None:
        """No worker puts in force what another has not examined yet."""
        self.up()
        reloading = self.reload(b"new")
        self.worker(1).pair.carry()
        self.assertEqual((self.worker(1).prepared, self.reloaded(), self.configuration), (1, [[], []], b"{}"))
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertEqual((self.reloaded(), self.configuration), ([[b"new"], [b"new"]], b"new"))

    def test_reload_not_answered(self) -> None:
        """A worker that does not answer a reload is replaced by a process that begins with the new configuration: it
        never applies it later, and it never keeps the old one (K6)."""
        self.up()
        self.worker(2).pair.stuck = True
        reloading = self.reload(b"new")
        self.pass_time(9)
        self.assertNoResult(reloading)
        self.pass_time(2)
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertEqual(self.told("worker_killed"), [2])
        self.assertTrue(self.worker(2).pair.ends[0].disconnecting)
        self.spawn.die(2)
        self.pass_time(0.2)
        self.assertEqual((self.worker(2).start.configuration, self.worker(2).reloaded), (b"new", []))

    def test_hung_before_commit(self) -> None:
        """One that hangs when it has prepared the configuration is replaced too."""
        self.up()
        reloading = self.reload(b"new")
        self.worker(2).pair.carry()
        self.worker(2).pair.stuck = True
        self.pass_time(12)
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertEqual((self.told("worker_killed"), self.reloaded()), ([2], [[b"new"], []]))

    def test_reload_during_a_start(self) -> None:
        """A worker that is still starting, with the old configuration, delays the others in nothing; it is waited for
        until it has the new one."""
        self.up()
        self.spawn.die(1)
        self.clock.advance(0.2)  # Started again, but not carried: it has not answered.
        reloading = self.reload(b"new")
        self.worker(2).pair.carry()
        self.assertEqual(self.worker(2).reloaded, [b"new"])
        self.clock.advance(20)
        self.worker(2).pair.carry()
        self.assertNoResult(reloading)
        self.spawn.carry()
        self.assertEqual((self.successResultOf(reloading), self.worker(1).reloaded), ([], [b"new"]))

    def test_refused_during_a_start(self) -> None:
        """One that refuses it while it starts, when the others have it, is started anew: it never serves the old."""
        self.up()
        self.spawn.die(1)
        self.clock.advance(0.2)
        self.worker(1).refuses = "no"
        reloading = self.reload(b"new")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertEqual(self.told("worker_killed"), [1])

    def test_reload_that_raises(self) -> None:
        """A worker in which a defect shows refuses the configuration; it is not killed for it, nor are the others left
        with another one."""
        self.up()

        def fail(data: bytes) -> Callable[[], object]:
            raise ZeroDivisionError

        self.patch(self.worker(1).worker, "_prepare", fail)
        reloading = self.reload(b"new")
        self.spawn.carry()
        self.assertEqual(self.successResultOf(reloading), ["worker 1: ZeroDivisionError: "])
        self.assertEqual((self.told("worker_killed"), self.reloaded()), ([], [[], []]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
