"""Tests of `nitroproxy.enclave.identity`: the certificate, its renewal, and what the application registers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import Entry, Policy
from nitroproxy.attestation.evidence import IDENTITY, spki_of, verify_certificate
from nitroproxy.attestation.evidence import Identity as Proven
from nitroproxy.enclave.identity import OVERDUE, Identity, IdentityState, TooMany
from nitroproxy.enclave.nsm_device import NsmError
from tests.attestation.pki import T0, document, fields, milliseconds, pki

POLICY = Policy((Entry("test", {index: bytes([index + 1]) * 48 for index in range(5)}),))


class IdentityTests(SynchronousTestCase):
    """On a clock that the test advances, both ways of telling the time together."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.skew = 0.0
        self.signs: list[tuple[bytes, bytes]] = []
        self.failing: str | None = None
        self.slow: list[Deferred[bytes]] | None = None
        self.told: list[IdentityState] = []
        self.ends = 0.125
        key = ec.generate_private_key(ec.SECP256R1())
        first = self.signed(IDENTITY, spki_of(key.public_key()))
        self.identity = Identity(key, first, self.sign, self.clock, self.now, self.changed, emulated=False)

    def now(self) -> float:
        return T0.timestamp() + 60 + self.clock.seconds() + self.skew

    def signed(self, user_data: bytes, public_key: bytes) -> bytes:
        chain = pki(leaf={"days": (0, self.ends)})
        self.roots = chain.roots
        moment = datetime.fromtimestamp(self.now(), UTC)
        own = {"public_key": public_key, "user_data": user_data, "nonce": None, "timestamp": milliseconds(moment)}
        return document(chain, {**fields(chain), **own})

    def sign(self, user_data: bytes, public_key: bytes) -> Deferred[bytes]:
        self.signs.append((user_data, public_key))
        if self.failing is not None:
            return fail(NsmError(self.failing))
        if self.slow is not None:
            self.slow.append(Deferred())
            return self.slow[-1]
        return succeed(self.signed(user_data, public_key))

    def changed(self, state: IdentityState) -> Deferred[Any]:
        self.told.append(state)
        return succeed(None)

    def proven(self) -> Proven:
        """What a client makes of the certificate now."""
        now = datetime.fromtimestamp(self.now(), UTC)
        return verify_certificate(self.identity.state.certificate, POLICY, now=now, roots=self.roots)

    def register(self, data: bytes) -> Deferred[None]:
        return Deferred.fromCoroutine(self.identity.register(data))

    def test_first(self) -> None:
        """The first certificate proves the key, which a process that is given the state can use."""
        state = IdentityState.read(self.identity.state.to_bytes())
        key = load_der_private_key(state.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(spki_of(key.public_key()), self.proven().spki)
        self.assertEqual((self.proven().user_data, state.debug, state.emulated, state.skew), (b"", False, False, 0))

    def test_repr(self) -> None:
        """The key is in no text that is made of a state."""
        shown = repr(self.identity.state) + str(self.identity.state) + f"{[self.identity.state]}"
        self.assertNotIn(repr(self.identity.state.key)[2:40], shown)
        self.assertNotIn("key", shown)

    def test_renewed(self) -> None:
        """After half an hour there is another certificate for the same key, and so on; all who serve are told."""
        before = self.identity.state.certificate
        self.clock.pump([15] * 119)
        self.assertEqual(self.told, [])
        self.clock.pump([15])
        self.assertEqual([state.certificate for state in self.told], [self.identity.state.certificate])
        self.assertNotEqual(self.identity.state.certificate, before)
        self.assertEqual({public for _, public in self.signs}, {self.proven().spki})
        self.clock.pump([15] * 240)
        self.assertEqual(len(self.told), 3)
        self.assertLess(self.identity.age, 60)

    def test_chain_that_ends(self) -> None:
        """Where the chain ends soon the certificate is renewed after half of what is left, but not all the time."""
        self.ends = 20 / 1440
        self.successResultOf(self.register(b""))
        self.clock.pump([15] * 37)
        self.assertEqual(len(self.told), 1)
        self.clock.pump([15] * 2)
        self.assertEqual(len(self.told), 2)
        self.ends = 0.0001
        self.successResultOf(self.register(b""))
        count = len(self.told)
        self.clock.pump([15] * 3)
        self.assertEqual(len(self.told), count)
        self.clock.pump([15])
        self.assertEqual(len(self.told), count + 1)

    def test_paused(self) -> None:
        """A machine that was paused, whose monotonic clock has stood still, renews at the next look."""
        self.skew = 3000.0
        self.clock.advance(15)
        self.assertEqual(len(self.told), 1)

    def test_clock_set_back(self) -> None:
        """A clock that is set back puts nothing off."""
        self.skew = -86400.0
        self.clock.pump([15] * 121)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(round(self.told[0].skew), 0)

    def test_failure(self) -> None:
        """When the NSM fails the old certificate stays, which is logged once, and the next look tries again."""
        self.failing = "the NSM failed"
        before = self.identity.state
        self.clock.pump([15] * 170)
        self.assertIs(self.identity.state, before)
        self.assertEqual(self.identity.problem, "the NSM failed")
        self.assertGreater(self.identity.age, OVERDUE)
        self.assertGreater(len(self.signs), 40)
        self.failing = None
        self.clock.advance(15)
        self.assertEqual((self.identity.problem, len(self.told)), ("", 1))
        self.assertLess(self.identity.age, 60)

    def test_unreadable(self) -> None:
        """A document that cannot be read is a failure of the NSM."""
        self.slow = []
        result = self.register(b"x")
        self.slow[0].callback(b"\xff")
        self.assertIn("cannot be read", str(self.failureResultOf(result, NsmError).value))
        self.assertEqual(self.proven().user_data, b"")

    def test_register(self) -> None:
        """What is registered is in the certificate when that is done, and in every later one."""
        self.successResultOf(self.register(b"r" * 496))
        self.assertEqual(self.proven().user_data, b"r" * 496)
        self.assertEqual(self.identity.user_data, IDENTITY + b"r" * 496)
        self.clock.pump([15] * 121)
        self.assertEqual(self.proven().user_data, b"r" * 496)
        self.failureResultOf(self.register(b"r" * 497), ValueError)
        self.successResultOf(self.register(b""))
        self.assertEqual(self.proven().user_data, b"")

    def test_register_fails(self) -> None:
        """When the NSM fails, what was registered before stays."""
        self.successResultOf(self.register(b"one"))
        self.failing = "broken"
        self.failureResultOf(self.register(b"two"), NsmError)
        self.failing = None
        self.clock.pump([15] * 121)
        self.assertEqual(self.proven().user_data, b"one")

    def test_in_turn(self) -> None:
        """Registrations are carried out one after the other, the last one counts; too many are refused."""
        self.slow = []
        results = [self.register(b"%d" % number) for number in range(8)]
        self.failureResultOf(self.register(b"9"), TooMany)
        for number in range(8):
            self.assertEqual(len(self.slow), number + 1)
            self.assertNoResult(results[number])
            self.slow[number].callback(self.signed(*self.signs[number]))
            self.successResultOf(results[number])
        self.assertEqual(self.proven().user_data, b"7")

    def test_told_before_done(self) -> None:
        """A registration is done when all processes have the certificate."""
        telling: Deferred[None] = Deferred()
        self.identity._changed = lambda state: telling
        result = self.register(b"x")
        self.assertNoResult(result)
        telling.callback(None)
        self.successResultOf(result)

    def test_stop(self) -> None:
        """Once stopped it leaves nothing behind."""
        self.identity.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.register(b"late"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dates(self) -> None:
        """The certificate ends with the chain of its document."""
        self.assertEqual(self.proven().attestation.not_after, T0 + timedelta(hours=3))
        self.assertEqual(self.identity.state.ends, (T0 + timedelta(hours=3)).timestamp())
