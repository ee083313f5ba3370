"""What the enclave daemon has once to attest with: the NSM, which it alone opens, and the identity.

`open_attestor` passes the gates. The processes that serve ask an `Attestor` by the questions below
(`nitroproxy.daemon.role.AskOnce`): `pages` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from nitroproxy.attestation.evidence import CHANNEL, IDENTITY, RESERVED, spki_of
from nitroproxy.enclave.gates import GateFailed, Machine, pass_gates
from nitroproxy.enclave.identity import Identity, IdentityState, TooMany
from nitroproxy.enclave.nsm import MOST_OF_STRANGERS, Nsm, NsmBusy, NsmThread, in_thread
from nitroproxy.enclave.nsm_device import NsmDevice, NsmError
from nitroproxy.telemetry.attestation import AttestationMetrics

_log: Final = Logger()

#: The questions. A challenge: ``[nonce, exported]``, for a document that names the identity, and the connection unless
#: *exported* is None. A document: ``[use, nonce, user_data, public_key]``. What the application registers: its bytes.
#: Random bytes: None. The answers are ``{"octets": ...}``, or ``{"problem": text, "busy": bool}``.
CHALLENGE: Final = "attestation_challenge"
DOCUMENT: Final = "attestation_document"
REGISTER: Final = "attestation_register"
RANDOM: Final = "attestation_random"
#: Seconds that an answer may take: the NSM takes a few milliseconds for a call, and as many as 17 may be before it.
ANSWER_SECONDS: Final = 20.0

Answer = dict[str, Any]


def open_attestor(reactor: Any, path: str, *, emulated: bool, machine: Machine | None = None) -> Attestor:
    """Open the NSM, pass the gates and make an identity. Blocks; for the start of the daemon.

    :param path: of the NSM's device.
    :param emulated: see `pass_gates`.
    :raises GateFailed: when the enclave cannot be trusted to attest.
    """
    try:
        device = NsmDevice(path)
    except NsmError as error:
        raise GateFailed("nsm", str(error)) from error
    try:
        passed = pass_gates(device, emulated=emulated, machine=machine)
        key = ec.generate_private_key(ec.SECP256R1())
        document = device.attestation(user_data=IDENTITY, public_key=spki_of(key.public_key()))
        attestor = Attestor(reactor, Nsm(device, in_thread(reactor, NsmThread())), key, document, emulated=emulated)
    except NsmError as error:
        device.close()
        raise GateFailed("nsm", str(error)) from error
    except GateFailed:
        device.close()
        raise
    _log.info("the NSM {module_id} attests this enclave", event="attesting", module_id=passed.module_id)
    if emulated:
        text = "attestation.emulated is on: this is no Nitro enclave, and clients refuse its documents"
        _log.warn(text, event="attestation_emulated")
    if passed.debug:
        text = "the enclave runs in debug mode: its documents prove no image, and clients refuse them"
        _log.warn(text, event="attestation_debug")
    return attestor


class Attestor:
    """See the module. The questions are answered in the reactor's thread.

    :param document: the identity's first.
    :ivar identity: of this daemon.
    :ivar metrics: what it counts.
    """

    def __init__(
        self,
        reactor: Any,
        nsm: Nsm,
        key: ec.EllipticCurvePrivateKey,
        document: bytes,
        *,
        emulated: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._nsm = nsm
        self._tell: Callable[[bytes], Deferred[Any]] = lambda shared: succeed(None)
        self.identity = Identity(key, document, self._sign, reactor, now, self._changed, emulated=emulated)
        self.metrics = AttestationMetrics(lambda: self.identity.age)

    @property
    def shared(self) -> bytes:
        """See `nitroproxy.daemon.role.Once`: an `IdentityState`."""
        return self.identity.state.to_bytes()

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """See `nitroproxy.daemon.role.Once`."""
        self._tell = tell

    @property
    def answerers(self) -> Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]:
        """See `nitroproxy.daemon.role.Once`."""
        return {
            CHALLENGE: self._answer_challenge,
            DOCUMENT: self._answer_document,
            REGISTER: self._register,
            RANDOM: self._give_random,
        }

    def stop(self) -> None:
        """Renew the certificate no more, and close the NSM."""
        self.identity.stop()
        self._nsm.close()

    def _changed(self, state: IdentityState) -> Deferred[Any]:
        return self._tell(state.to_bytes())

    def _sign(self, user_data: bytes, public_key: bytes) -> Deferred[bytes]:
        signing = self._nsm.attestation(user_data=user_data, public_key=public_key, urgent=True)
        return Deferred.fromCoroutine(self._counted("certificate", signing))

    async def _counted(self, use: str, signing: Deferred[bytes]) -> bytes:
        """The document that *signing* gives.

        :raises NsmError: as *signing* fails.
        """
        started = self._reactor.seconds()
        outcome = "failed"
        try:
            document = await signing
            outcome = "signed"
        except NsmBusy:
            outcome = "busy"
            raise
        finally:
            self.metrics.document(use, outcome)
            if outcome != "busy":
                self.metrics.called(self._reactor.seconds() - started)
        return document

    async def _answer_challenge(self, about: Any) -> Answer:
        nonce, exported = about
        user_data = self.identity.user_data if exported is None else CHANNEL + exported
        signing = self._nsm.attestation(
            nonce=nonce, user_data=user_data, public_key=self.identity.spki, places=MOST_OF_STRANGERS
        )
        return await self._answer(self._counted("challenge", signing))

    async def _answer_document(self, about: Any) -> Answer:
        use, nonce, user_data, public_key = about
        if user_data is not None and user_data.startswith(RESERVED):
            raise ValueError("user_data that is reserved")  # Its page has refused it already.
        signing = self._nsm.attestation(nonce=nonce, user_data=user_data, public_key=public_key)
        return await self._answer(self._counted(use, signing))

    async def _register(self, about: Any) -> Answer:
        async def register() -> bytes:
            await self.identity.register(about)
            return b""

        return await self._answer(register())

    async def _give_random(self, about: Any) -> Answer:
        async def give() -> bytes:
            return await self._nsm.random()

        return await self._answer(give())

    @staticmethod
    async def _answer(giving: Coroutine[Any, Any, bytes]) -> Answer:
        try:
            return {"octets": await giving}
        except (NsmError, TooMany) as error:
            return {"problem": str(error), "busy": isinstance(error, NsmBusy | TooMany)}
