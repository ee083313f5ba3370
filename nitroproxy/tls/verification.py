"""Whether a certificate is accepted, once OpenSSL has accepted its chain in the handshake; and for how long.

The order: the certificate is for the host (`names`), no wildcard covers what an authority must not vouch for
(`constraints`), and the chain conforms to the profile of its anchor (`webpki`). Any exception refuses. Neither a
refusal nor an exception is remembered.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL import SSL, crypto
from twisted.logger import Logger

from nitroproxy.tls.anchors import Anchor
from nitroproxy.tls.constraints import check_wildcards
from nitroproxy.tls.names import check_name
from nitroproxy.tls.reasons import Refused, refusal, shown
from nitroproxy.tls.settings import Profile
from nitroproxy.tls.webpki import WebPKI

_log: Final = Logger()
_T = TypeVar("_T")

#: What the library raises for what a destination may have put into a certificate: its fault, and no traceback's worth.
_UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
#: Verdicts remembered.
_VERDICTS: Final = 1024
#: Seconds that a verdict holds, so that a certificate is looked at again now and then.
_LIFETIME: Final = 3600.0


@dataclass(frozen=True)
class Verdict:
    """A chain was accepted.

    :ivar until: when it must be looked at again, in seconds of the monotonic clock.
    :ivar not_after: when its first certificate expires, in seconds since the epoch.
    :ivar size: bytes of the chain as it was sent, which a session of the connection holds.
    """

    until: float
    not_after: float
    size: int = 0


class Clocks:
    """The two clocks that bound a verdict.

    :param now: monotonic, in seconds.
    :param wall: the time of day, in seconds since the epoch, by which certificates expire.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self.now = now
        self.wall = wall

    def date(self) -> datetime:
        """The time of day."""
        return datetime.fromtimestamp(self.wall(), UTC)

    def holds(self, verdict: Verdict) -> bool:
        """Whether *verdict* may still be relied on. A wall clock set back does not prolong it past an hour."""
        return self.now() < verdict.until and self.wall() < verdict.not_after

    def verdict(self, chain: Sequence[x509.Certificate]) -> Verdict:
        """A new verdict on *chain*."""
        expires = min((certificate.not_valid_after_utc.timestamp() for certificate in chain), default=float("inf"))
        return Verdict(self.now() + _LIFETIME, expires)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings of the library about serial numbers: a destination must not write to this process's log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


class Verifier:
    """Verifies what OpenSSL's handshake leaves open, against one set of anchors.

    It remembers 1,024 verdicts, by the SHA-256 of the whole chain as sent and the host. It lives as long as its
    anchors: a reload makes a new one, so that no verdict outlives the anchors that it was reached with.

    :param profile: what every chain must conform to; None: by the kind of its anchor.
    """

    def __init__(self, anchors: Sequence[Anchor], profile: Profile | None, clocks: Clocks) -> None:
        self._profile = profile
        self._clocks = clocks
        self._anchors = {anchor.der: anchor for anchor in anchors}
        conforming = [anchor for anchor in anchors if self._profile_of(anchor) == "webpki"]
        self._webpki = WebPKI(conforming) if conforming else None
        self._verdicts: OrderedDict[tuple[str, bytes], Verdict] = OrderedDict()

    def verify(self, connection: SSL.Connection, host: str) -> Verdict:
        """The verdict on the certificate that *connection* has just been sent, for *host*.

        Called once a full handshake is over, before anything is sent.

        :raises ProxyError: unless it is accepted; any exception at all refuses it.
        """
        return self._refusing(host, lambda: self._verdict(connection, host))

    def check_name(self, certificate: crypto.X509, host: str) -> None:
        """Check the name alone: before a client certificate is sent, which happens in the middle of the handshake.

        :raises ProxyError: unless it is for *host*.
        """
        with _quietly():
            self._refusing(host, lambda: check_name(certificate.to_cryptography(), host))

    def _refusing(self, host: str, check: Callable[[], _T]) -> _T:
        try:
            return check()
        except Refused as error:
            raise refusal(host, str(error)) from error
        except _UNREADABLE as error:
            raise refusal(host, f"it cannot be read: {shown(error)}") from error
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # A panic in the library's Rust is not an Exception.
            _log.failure("verifying the certificate of {host} failed", event="verification_failed", host=host)
            raise refusal(host, f"verifying it failed: {type(error).__name__}") from error

    def _verdict(self, connection: SSL.Connection, host: str) -> Verdict:
        sent = [
            crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            for certificate in connection.get_peer_cert_chain() or ()
        ]
        if not sent:
            raise Refused("the destination sent none")
        digest = sha256()
        for der in sent:
            digest.update(b"%d:" % len(der))
            digest.update(der)
        key = host, digest.digest()
        known = self._verdicts.get(key)
        if known is not None and self._clocks.holds(known):
            self._verdicts.move_to_end(key)
            return known
        with _quietly():
            verdict = self._look_at(connection, [x509.load_der_x509_certificate(der) for der in sent], host)
        verdict = replace(verdict, size=sum(map(len, sent)))
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _VERDICTS:
            self._verdicts.popitem(last=False)
        return verdict

    def _look_at(self, connection: SSL.Connection, sent: Sequence[x509.Certificate], host: str) -> Verdict:
        check_name(sent[0], host)
        verified = connection.get_verified_chain(as_cryptography=True)
        if not verified:
            raise Refused("OpenSSL has no verified chain of it")
        check_wildcards(verified)
        anchor = self._anchors[verified[-1].public_bytes(Encoding.DER)]
        if self._webpki is not None and self._profile_of(anchor) == "webpki":
            try:
                self._webpki.check(sent, verified, anchor, host, self._clocks.date())
            except Refused as error:
                raise Refused(f'{error}. tls.certificate_profile "webpki" asks for that; "openssl" does not') from error
        return self._clocks.verdict(verified)

    def _profile_of(self, anchor: Anchor) -> Profile:
        return self._profile or ("webpki" if anchor.built_in else "openssl")
