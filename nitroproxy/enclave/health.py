"""The health of the enclave daemon and of the way out of it: the host asks for it for its own page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from nitroproxy.enclave.gates import DOCUMENT_SECONDS
from nitroproxy.enclave.identity import OVERDUE, TOO_OLD, IdentityState
from nitroproxy.errors import ProxyError
from nitroproxy.policy import Policy
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.health import LONGEST_HEALTH, Check, Health, read_health, same_policy, tls_verification

#: Seconds that the relay may take to answer: less than the host waits for all of this.
_RELAY_TIMEOUT: Final = 0.6
#: What the relay has something to say about; every other layer is the enclave's to examine.
_RELAY_LAYERS: Final = ("egress", "dns", "policy")


def attestation_check(state: IdentityState, now: float) -> Check:
    """The check that says whether clients accept the enclave's certificate.

    :param now: the time, in seconds since the epoch.
    """
    age = now - state.signed
    if age >= TOO_OLD:
        return Check("fail", f"the certificate is {age:.0f} s old: it could not be renewed, and clients refuse it")
    if now >= state.ends:
        return Check("fail", "the certificate's chain has ended: it could not be renewed, and clients refuse it")
    if state.debug:
        return Check("warn", "DEBUG: the enclave runs in debug mode, and clients refuse its documents")
    if state.emulated:
        return Check("warn", "EMULATED: attestation.emulated is on; this is no Nitro enclave")
    if abs(state.skew) > DOCUMENT_SECONDS:
        return Check("warn", f"the system's time differs from the NSM's by {state.skew:+.0f} s")
    if age >= OVERDUE:
        return Check("warn", f"the certificate is {age:.0f} s old: it should have been renewed")
    return Check("pass", f"the certificate is {max(age, 0):.0f} s old")


class HealthOfEnclave:
    """Examines the enclave daemon and the relay beyond it.

    :param workers: examines the daemon's processes, if it has several.
    :param ingress: examines the application's ports, if it is reached from outside.
    :param attestation: gives the state of the enclave's identity, if it has one.
    :param transparent: examines the way of applications that know no proxy, if there is one.
    """

    def __init__(
        self,
        relay: IStreamClientEndpoint,
        policy: Policy,
        deadlines: Deadlines,
        version: str,
        settings: PoolSettings,
        *,
        verifies: bool,
        workers: Callable[[], Coroutine[Any, Any, Check]] | None = None,
        ingress: Callable[[], Coroutine[Any, Any, Check]] | None = None,
        attestation: Callable[[], Check | None] = lambda: None,
        transparent: Callable[[], Coroutine[Any, Any, Check]] | None = None,
    ) -> None:
        self._policy = policy
        self._deadlines = deadlines
        self._version = version
        self._verifies = verifies
        #: What is examined beside the relay, by its layer.
        self._others = {"ingress": ingress, "transparent": transparent, "workers": workers}
        self._attestation = attestation
        self._pool = Pool(
            lambda key, identity: relay,
            deadlines,
            replace(settings, connect_timeout=_RELAY_TIMEOUT, most=16),
            end_is_proof=lambda key: False,
        )

    async def __call__(self) -> Health:
        """The health of the enclave daemon, of the egress relay and of what the relay says of DNS."""
        health = Health("nitroproxy-enclave", self._version, {"enclave": Check("pass")})
        others = {name: Deferred.fromCoroutine(examine()) for name, examine in self._others.items() if examine}
        try:
            _, body = await fetch(self._pool, "relay", b"/health", self._deadlines, _RELAY_TIMEOUT, LONGEST_HEALTH)
            theirs = read_health(body, _RELAY_LAYERS)
            health.checks.update(theirs)
            if "policy" in theirs:
                health.checks["policy"] = same_policy(self._policy.fingerprint, theirs["policy"].output)
        except ProxyError as error:
            health.checks["egress"] = Check("fail", f"the egress relay does not answer: {error.detail}")
        except ValueError as error:
            health.checks["egress"] = Check("fail", f"the egress relay's health cannot be read: {error}")
        health.checks["tls_verification"] = tls_verification(self._verifies)
        attestation = self._attestation()
        if attestation is not None:
            health.checks["attestation"] = attestation
        for name, examining in others.items():
            health.checks[name] = await examining
        return health
