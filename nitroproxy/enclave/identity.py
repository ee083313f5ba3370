"""The enclave's identity: a key, made anew by each daemon and never stored, and a certificate that the NSM vouches for.

The process that has the NSM holds an `Identity`, renews its certificate long before clients would find it too old, and
gives an `IdentityState` to the processes that serve. The private key leaves a process only on the socket pair to
another one of the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from nitroproxy.attestation import Refused
from nitroproxy.attestation.certificate import read_certificate
from nitroproxy.attestation.document import read_document
from nitroproxy.attestation.evidence import IDENTITY, MOST_REGISTERED, make_certificate, spki_of
from nitroproxy.attestation.policy import is_debug
from nitroproxy.enclave.nsm_device import NsmError

_log: Final = Logger()

#: Seconds after which a certificate is renewed, if its chain does not end long before: clients accept a document for an
#: hour unless their policy says otherwise.
_RENEW_AFTER: Final = 1800.0
#: The shortest time between two renewals, in seconds, however soon a chain ends; and between two looks at the clock.
_SHORTEST: Final = 60.0
_LOOK: Final = 15.0
#: Seconds after which a certificate that could not be renewed is worth a warning, and is refused by clients.
OVERDUE: Final = 2400.0
TOO_OLD: Final = 3600.0
#: Registrations that may wait for the one under way.
_MOST_WAITING: Final = 8

#: Has the NSM sign a document with this user_data and public_key, before any other call that waits.
Sign = Callable[[bytes, bytes], Deferred[bytes]]


class IdentityState(msgspec.Struct, frozen=True):
    """What a process that serves needs to know.

    :ivar key: the private key, PKCS #8.
    :ivar certificate: DER.
    :ivar signed: when its document was signed, in seconds since the epoch.
    :ivar skew: how much later than the system's time that was then, in seconds.
    :ivar ends: when the document's chain does, in seconds since the epoch.
    :ivar debug: the enclave runs in debug mode.
    :ivar emulated: ``attestation.emulated`` is true.
    """

    key: bytes
    certificate: bytes
    signed: float
    skew: float
    ends: float
    debug: bool
    emulated: bool

    def __repr__(self) -> str:
        """Without the key, which must not reach a log or a traceback."""
        return f"<IdentityState signed at {self.signed}>"

    def to_bytes(self) -> bytes:
        """For another process of the daemon."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def read(cls, data: bytes) -> IdentityState:
        """What `to_bytes` has written."""
        return msgspec.msgpack.decode(data, type=cls)


class TooMany(Exception):
    """Too many registrations wait; the caller may try again in a second."""


class Identity:
    """The key, and the certificate in use.

    :param document: the first, with `first_fields` in it.
    :param sign: signs the later ones.
    :param now: the time of day, in seconds since the epoch.
    :param changed: called with each new state; its result fires when all who need it have it.
    :ivar state: the one in use.
    :ivar problem: why the last renewal failed; empty when it did not.
    :raises NsmError: when *document* cannot be read.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        document: bytes,
        sign: Sign,
        clock: IReactorTime,
        now: Callable[[], float],
        changed: Callable[[IdentityState], Deferred[Any]],
        *,
        emulated: bool,
    ) -> None:
        self._key = key
        self._sign = sign
        self._clock = clock
        self._now = now
        self._changed = changed
        self._emulated = emulated
        self._registered = b""
        self._lock = DeferredLock()
        self._waiting = 0
        self._stopped = False
        self.spki = spki_of(key.public_key())
        self.problem = ""
        self.state = self._state_of(document)
        self._look = clock.callLater(_LOOK, self._look_at_clock)

    @property
    def user_data(self) -> bytes:
        """The user_data of its documents: its label and what the application has registered."""
        return IDENTITY + self._registered

    @property
    def age(self) -> float:
        """Seconds since the NSM signed the certificate's document."""
        return self._now() - self.state.signed

    def stop(self) -> None:
        """Renew it no more."""
        self._stopped = True
        if self._look.active():
            self._look.cancel()

    async def register(self, data: bytes) -> None:
        """Have every certificate from now on carry *data*. Returns when all processes use one that does.

        :raises ValueError: when *data* is too long; nothing has changed.
        :raises TooMany: when too many registrations wait.
        :raises NsmError: when the NSM fails; what was registered before stays.
        """
        if len(data) > MOST_REGISTERED:
            raise ValueError(f"expected at most {MOST_REGISTERED} bytes, got {len(data)}")
        if self._waiting >= _MOST_WAITING:
            raise TooMany(f"{self._waiting} registrations wait for another one")
        self._waiting += 1
        try:
            await self._renew(data)
        finally:
            self._waiting -= 1

    async def renew(self) -> None:
        """Make the next certificate.

        :raises NsmError: when the NSM fails; the present one stays.
        """
        await self._renew(None)

    async def _renew(self, registered: bytes | None) -> None:
        """One at a time, so that the certificate in use has what was registered last."""
        await self._lock.acquire()
        try:
            data = self._registered if registered is None else registered
            document = await self._sign(IDENTITY + data, self.spki)
            self.state = self._state_of(document)
            self._registered = data
            self.problem = ""
            self._plan()
            await self._changed(self.state)
        finally:
            self._lock.release()

    def _state_of(self, encoded: bytes) -> IdentityState:
        """The state with a new certificate.

        :raises NsmError: when the document cannot be read.
        """
        try:
            document = read_document(encoded)
            chain = [read_certificate(der, "a certificate") for der in (*document.cabundle, document.certificate)]
        except Refused as error:
            raise NsmError(f"the NSM's document cannot be read: {error}") from error
        now = self._now()
        ends = min(one.not_after for one in chain)
        certificate = make_certificate(self._key, encoded, datetime.fromtimestamp(now, UTC), ends)
        self._renew_at = now + _time_to_renewal(ends - datetime.fromtimestamp(now, UTC))
        self._renew_at_monotonic = self._clock.seconds() + self._renew_at - now
        key = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        signed = document.timestamp.timestamp()
        debug = is_debug(document.pcrs)
        return IdentityState(key, certificate, signed, signed - now, ends.timestamp(), debug, self._emulated)

    def _plan(self) -> None:
        if not self._stopped:
            if self._look.active():
                self._look.cancel()
            self._look = self._clock.callLater(_LOOK, self._look_at_clock)

    def _look_at_clock(self) -> None:
        """By both clocks: a VM that was paused has lost monotonic time, and the system's time may be set back."""
        due = self._now() >= self._renew_at or self._clock.seconds() >= self._renew_at_monotonic
        if not due:
            self._plan()
            return
        Deferred.fromCoroutine(self.renew()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not self.problem:
            _log.error(
                "the certificate cannot be renewed, the old one stays in use: {problem}",
                event="certificate_not_renewed",
                problem=str(error),
            )
        self.problem = str(error) or type(error).__name__
        self._plan()


def _time_to_renewal(left: timedelta) -> float:
    """Seconds until a certificate is renewed whose chain ends in *left*."""
    return max(min(_RENEW_AFTER, left.total_seconds() / 2), _SHORTEST)
