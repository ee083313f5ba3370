"""Tests of `nitroproxy.enclave.attestor`: the questions of the processes that serve."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.evidence import CHANNEL, IDENTITY
from nitroproxy.enclave import attestor as module
from nitroproxy.enclave.attestor import CHALLENGE, DOCUMENT, RANDOM, REGISTER, Attestor, open_attestor
from nitroproxy.enclave.gates import GateFailed, Machine
from nitroproxy.enclave.identity import IdentityState
from nitroproxy.telemetry.metrics import Metrics
from tests.attestation.fake_nsm import FakeNsm
from tests.attestation.pki import T0
from tests.roles import FakeReactor

_T = TypeVar("_T")


class AttestorTests(SynchronousTestCase):
    """On an NSM behind `fcntl.ioctl`, whose calls the test carries out."""

    def setUp(self) -> None:
        self.nsm = FakeNsm()
        self.patch(fcntl, "ioctl", self.nsm.ioctl)
        self.calls: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.patch(module, "in_thread", lambda reactor, threads: self.run_later)
        self.reactor = FakeReactor()
        self.clocks = Path(self.mktemp())
        self.clocks.mkdir()
        for name in ("current", "available"):
            (self.clocks / f"{name}_clocksource").write_text("tsc\n")
        self.attestor = self.open()

    def open(self, path: str = os.devnull) -> Attestor:
        machine = Machine(self.clocks, "", os.devnull, "x86_64", lambda: T0.timestamp() + 60)
        return open_attestor(self.reactor, path, emulated=True, machine=machine)

    def run_later(self, call: Callable[[], _T], /) -> Deferred[_T]:
        result: Deferred[_T] = Deferred()
        self.calls.append((call, result))
        return result

    def carry_out(self) -> None:
        """Make the calls to the NSM that are due."""
        while self.calls:
            call, result = self.calls.pop(0)
            try:
                outcome = call()
            except Exception:
                result.errback(Failure())
            else:
                result.callback(outcome)

    def ask(self, what: str, about: object) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.attestor.answerers[what](about))

    def answer(self, what: str, about: object) -> Any:
        asking = self.ask(what, about)
        self.carry_out()
        return self.successResultOf(asking)

    def asked(self) -> Any:
        """The fields of the last document that the NSM was asked for."""
        return self.nsm.requests[-1]["Attestation"]

    def documents(self) -> dict[tuple[str, str], float]:
        """What is counted of documents, without zeros."""
        metrics = Metrics("enclave", "1")
        metrics.sources = [self.attestor.metrics.collect]
        [family, *_] = metrics.collect()
        return {
            (sample.labels["use"], sample.labels["outcome"]): sample.value for sample in family.samples if sample.value
        }

    def test_challenge(self) -> None:
        """A challenge's document has the nonce and the identity's key, and names the connection if there is one."""
        self.answer(REGISTER, b"mine")
        answer = self.answer(CHALLENGE, [b"n" * 16, None])
        spki = self.attestor.identity.spki
        self.assertEqual(self.asked(), {"nonce": b"n" * 16, "user_data": IDENTITY + b"mine", "public_key": spki})
        self.assertIn(b"SHA384", answer["octets"])
        self.answer(CHALLENGE, [b"n" * 16, b"e" * 32])
        self.assertEqual(self.asked(), {"nonce": b"n" * 16, "user_data": CHANNEL + b"e" * 32, "public_key": spki})
        self.assertEqual(self.documents(), {("challenge", "signed"): 2, ("certificate", "signed"): 1})

    def test_document(self) -> None:
        """The application's fields are passed on as they are."""
        fields = {"nonce": b"n", "user_data": b"u", "public_key": b"p"}
        self.assertIn("octets", self.answer(DOCUMENT, ["application", b"n", b"u", b"p"]))
        self.assertEqual(self.asked(), fields)
        self.answer(DOCUMENT, ["kms", None, None, b"p"])
        self.assertEqual(self.documents(), {("application", "signed"): 1, ("kms", "signed"): 1})

    def test_reserved(self) -> None:
        """Nobody is given a document that could pass for an identity or the answer to a challenge."""
        for user_data in (IDENTITY, CHANNEL + b"e" * 32, b"nitroproxy/"):
            count = len(self.nsm.requests)
            self.failureResultOf(self.ask(DOCUMENT, ["application", None, user_data, b"p"]), ValueError)
            self.assertEqual(len(self.nsm.requests), count)

    def test_random(self) -> None:
        """Random bytes."""
        self.assertEqual(len(self.answer(RANDOM, None)["octets"]), 256)

    def test_register(self) -> None:
        """What is registered is in the state that all processes have by then."""
        shared: list[bytes] = []

        def tell(data: bytes) -> Deferred[None]:
            shared.append(data)
            return succeed(None)

        self.attestor.watch(tell)
        self.assertEqual(self.answer(REGISTER, b"mine"), {"octets": b""})
        self.assertEqual(shared, [self.attestor.shared])
        self.assertEqual(IdentityState.read(shared[0]).certificate, self.attestor.identity.state.certificate)

    def test_nsm_fails(self) -> None:
        """The NSM's failures are answers, and are counted."""
        self.nsm.instead = OSError(5, "Input/output error")
        for what, about in ((CHALLENGE, [b"n" * 16, None]), (DOCUMENT, ["kms", None, None, None]), (REGISTER, b"x")):
            answer = self.answer(what, about)
            self.assertEqual(answer, {"problem": "the NSM failed at Attestation: Input/output error", "busy": False})
        self.assertEqual(set(self.documents()), {(use, "failed") for use in ("challenge", "kms", "certificate")})

    def test_strangers(self) -> None:
        """Challenges of strangers, however many, leave places for the application, and a renewal waits for none."""
        challenges = [self.ask(CHALLENGE, [b"n" * 16, None]) for _ in range(20)]
        refused = [self.successResultOf(one) for one in challenges[9:]]
        self.assertEqual([answer["busy"] for answer in refused], [True] * 11)
        own = [self.ask(DOCUMENT, ["application", None, b"%d" % number, None]) for number in range(8)]
        self.assertTrue(self.successResultOf(self.ask(DOCUMENT, ["application", None, b"", None]))["busy"])
        registering = self.ask(REGISTER, b"urgent")
        for _ in range(2):
            self.carry_one()
        self.successResultOf(registering)
        self.assertNoResult(challenges[8])
        self.carry_out()
        for one in [*challenges[:9], *own]:
            self.assertIn("octets", self.successResultOf(one))

    def carry_one(self) -> None:
        call, result = self.calls.pop(0)
        result.callback(call())

    def test_no_device(self) -> None:
        """Without an NSM a gate fails."""
        error = self.assertRaises(GateFailed, self.open, "/no/such/device")
        self.assertIn("'nsm' has failed: /no/such/device: No such file or directory; is this an enclave", str(error))

    def test_gate_fails(self) -> None:
        """When a gate fails the device is closed."""
        opened = len(os.listdir("/proc/self/fd"))
        (self.clocks / "available_clocksource").write_text("kvm-clock\n")
        self.assertRaises(GateFailed, self.open)
        self.assertEqual(len(os.listdir("/proc/self/fd")), opened)

    def test_stop(self) -> None:
        """Once stopped there is no timer, and the device is closed when its last call has ended."""
        under_way, waiting = self.ask(RANDOM, None), self.ask(RANDOM, None)
        opened = len(os.listdir("/proc/self/fd"))
        self.attestor.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(waiting)["problem"], "the NSM has been closed")
        self.assertEqual(len(os.listdir("/proc/self/fd")), opened)
        self.carry_out()
        self.assertIn("octets", self.successResultOf(under_way))
        self.assertEqual(len(os.listdir("/proc/self/fd")), opened - 1)
        self.assertIn("problem", self.answer(RANDOM, None))
