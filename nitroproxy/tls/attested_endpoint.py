"""TLS with an enclave: a connection's protocol is made only when the attestation has been verified, and nothing is sent
before.

There are no authorities and no names. The server's certificate carries a document (`nitroproxy.attestation.evidence`);
a policy says which images are accepted. Whatever goes wrong refuses, with `Refused` or the connection's own failure.
"""

from __future__ import annotations

import base64
import os
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.attestation import AWS_ROOTS, Policy, Refused, check_time
from nitroproxy.attestation.document import MAX_DOCUMENT
from nitroproxy.attestation.evidence import (
    EXPORTER_BYTES,
    EXPORTER_LABEL,
    Identity,
    verify_certificate,
    verify_challenge,
)
from nitroproxy.errors import ProxyError
from nitroproxy.http1.messages import Limits
from nitroproxy.http1.reader import ResponseReader
from nitroproxy.tls.handshake import OneProtocol
from nitroproxy.tls.identities import load_identity
from nitroproxy.tls.names import is_address
from nitroproxy.tls.settings import ClientCertificateFiles

#: Verdicts remembered, and seconds for handshake and challenge.
_VERDICTS: Final = 256
_PATIENCE: Final = 20.0
_NONCE_BYTES: Final = 32


class Verifier:
    """The verdicts of one policy. A certificate that was accepted is not verified again, but its times are judged again
    for each connection. A refusal is not remembered.

    :param roots: see `nitroproxy.attestation.verify`; for tests.
    :param now: the time of day, with a time zone.
    :raises ValueError: for a policy that accepts documents of any age: those prove nothing of a connection.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        roots: Collection[bytes] = AWS_ROOTS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if policy.max_age is None:
            raise ValueError("expected a policy with a max_age")
        self._policy = policy
        self._roots = roots
        self._now = now
        self._verdicts: OrderedDict[bytes, Identity] = OrderedDict()

    def verify(self, der: bytes) -> Identity:
        """What the certificate *der* proves.

        :raises Refused: when it is not accepted.
        """
        digest = sha256(der).digest()
        known = self._verdicts.get(digest)
        if known is not None:
            attestation = known.attestation
            check_time(self._policy, self._now(), timestamp=attestation.timestamp, not_after=attestation.not_after)
            self._verdicts.move_to_end(digest)
            return known
        identity = verify_certificate(der, self._policy, now=self._now(), roots=self._roots)
        self._verdicts[digest] = identity
        if len(self._verdicts) > _VERDICTS:
            self._verdicts.popitem(last=False)
        return identity

    def verify_answer(self, document: bytes, nonce: bytes, spki: bytes, exported: bytes) -> None:
        """Verify the answer to a challenge.

        :raises Refused: when it is not accepted.
        """
        verify_challenge(
            document, self._policy, now=self._now(), nonce=nonce, spki=spki, exported=exported, roots=self._roots
        )


@implementer(IOpenSSLClientConnectionCreator)
class AttestedTLS:
    """Makes connections to enclaves.

    :param challenge: ask each enclave for a document with a new nonce before the connection is used, which proves that
        it has its key now: without one a stolen key is good for the policy's max_age.
    :param client_certificate: the client's own, for a proxy that asks for it; it goes to accepted enclaves only.
    :raises ValueError: when the client certificate's files cannot be used.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        challenge: bool = False,
        client_certificate: ClientCertificateFiles | None = None,
    ) -> None:
        self.verifier = verifier
        self.challenge = challenge
        self.wrapping = _Wrapping(self, True, Factory())
        self._context = _context(client_certificate)

    def wrap(self, endpoint: IStreamClientEndpoint, host: str, clock: IReactorTime) -> IStreamClientEndpoint:
        """An endpoint that connects *endpoint*, starts TLS and verifies the enclave.

        :param host: its name or address, for what stands between; it proves nothing.
        """
        return AttestedEndpoint(self, endpoint, host, clock)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        attesting = tlsProtocol.wrappedProtocol
        assert isinstance(attesting, _Attesting)
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)  # as Twisted does, for the verify callback
        if not is_address(attesting.host):
            connection.set_tlsext_host_name(attesting.host.encode("ascii"))
        return connection


def _context(client_certificate: ClientCertificateFiles | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # Where a session is resumed no certificate is sent.
    context.set_alpn_protos([b"http/1.1"])
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify(SSL.VERIFY_PEER, _certificate_verified)
    if client_certificate is not None:
        identity = load_identity("client certificate", client_certificate)
        leaf, *authorities = identity.chain
        context.use_certificate(leaf)
        for certificate in authorities:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
    return context


def _certificate_verified(
    connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verify callback: its own errors do not count, for the document proves the certificate, and nothing else
    does. Asked more than once for one certificate. Any exception refuses."""
    try:
        attesting = connection.get_app_data().wrappedProtocol
        return isinstance(attesting, _Attesting) and attesting.judge(certificate, depth) is True
    except Exception:
        return False


@implementer(IHandshakeListener)
class _Attesting(Protocol):
    """Waits for the handshake and the challenge, then makes the application's protocol and leaves.

    :ivar identity: what the certificate proves; None while none has been accepted.
    :ivar refused: why it was not.
    :ivar connecting: what makes the connection.
    """

    transport: Any
    connecting: Deferred[IProtocol] | None = None

    def __init__(
        self, tls: AttestedTLS, host: str, factory: IProtocolFactory, result: Deferred[IProtocol], clock: IReactorTime
    ) -> None:
        self.host = host
        self.identity: Identity | None = None
        self.refused: Exception | None = None
        self._tls = tls
        self._factory = factory
        self._result = result
        self._der = b""
        self._nonce = b""
        self._answer = bytearray()
        self._reader: ResponseReader | None = None
        self._head_read = False
        self._patience = clock.callLater(_PATIENCE, self._late)

    def connectionMade(self) -> None:
        if self._result.called:
            self.transport.abortConnection()  # Too late: nobody else would ever end it.

    def judge(self, certificate: crypto.X509, depth: int) -> bool:
        """Whether to go on with *certificate*."""
        try:
            if depth:
                raise Refused("binding", "the server has sent a chain of certificates: an enclave has one certificate")
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            if self.identity is not None and der == self._der:
                return True  # OpenSSL asks again at the end of the chain.
            identity = self._tls.verifier.verify(der)
            # As OpenSSL reads it: this is the key with which it completes the handshake.
            if crypto.dump_publickey(crypto.FILETYPE_ASN1, certificate.get_pubkey()) != identity.spki:
                raise Refused("binding", "the certificate's key can be read in two ways")
        except Exception as error:
            self.identity, self.refused = None, error
            return False
        self.identity, self._der = identity, der
        return True

    def handshakeCompleted(self) -> None:
        """The handshake is done: look at what it proved once more, then challenge the enclave or begin."""
        if self._result.called:
            return
        try:
            self._check_connection()
            if self._tls.challenge:
                self._challenge()
            else:
                self._begin()
        except Exception as error:
            self._fail(error)

    def _check_connection(self) -> None:
        """The connection is the one whose certificate was accepted."""
        connection: SSL.Connection = self.transport.getHandle()
        certificate = connection.get_peer_certificate()
        if self.identity is None or self.refused is not None or certificate is None:
            raise self.refused or Refused("internal", "the handshake is over, but no certificate was accepted")
        if crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) != self._der:
            raise Refused("internal", "the handshake is over, with another certificate than the one accepted")

    def _challenge(self) -> None:
        self._nonce = os.urandom(_NONCE_BYTES)
        self._reader = ResponseReader(Limits())
        request = f"GET /enclave/attestation?nonce={self._nonce.hex()} HTTP/1.1\r\nHost: enclave\r\n\r\n"
        self.transport.write(request.encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        if self._result.called:
            return
        try:
            if self._reader is None:
                raise Refused("internal", "the enclave has sent something unasked")
            self._reader.feed(data)
            if self._answer_read(self._reader):
                self._verify_answer()
                self._begin()
        except ProxyError as error:
            self._fail(Refused("nonce", f"the answer to the challenge cannot be read: {error.detail}"))
        except Exception as error:
            self._fail(error)

    def _answer_read(self, reader: ResponseReader) -> bool:
        """Whether the whole answer has been read.

        :raises Refused: when it is none.
        """
        if not self._head_read:
            response = reader.read_head(b"GET")
            if response is None:
                return False
            if response.status != 200 or not response.keep_alive:
                raise Refused("nonce", f"the enclave has answered the challenge with status {response.status}")
            self._head_read = True
        self._answer += reader.read_body()
        if len(self._answer) > MAX_DOCUMENT:
            raise Refused("size", f"the answer to the challenge is over {MAX_DOCUMENT} bytes")
        if reader.complete and reader.buffered:
            raise Refused("nonce", "something follows the answer to the challenge")
        return reader.complete

    def _verify_answer(self) -> None:
        assert self.identity is not None
        connection: SSL.Connection = self.transport.getHandle()
        exported = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b"")
        self._tls.verifier.verify_answer(bytes(self._answer), self._nonce, self.identity.spki, exported)

    def _begin(self) -> None:
        """The enclave is accepted: the application's protocol takes over."""
        inner = self._factory.buildProtocol(self.transport.getPeer())
        if inner is None:
            raise ConnectionLost("no protocol for the connection")
        self._over()
        self.transport.identity = self.identity
        self.transport.wrappedProtocol = inner
        inner.makeConnection(self.transport)
        self._result.callback(inner)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._result.called:
            return
        if self.refused is not None:
            self._fail(self.refused)
        elif reason.value is None or reason.check(ConnectionDone):
            self._fail(ConnectionLost("the connection was closed before the enclave was verified"))
        else:
            self._fail(reason.value)

    def give_up(self) -> None:
        """End the connection; called when nobody waits for it any more."""
        self._over()
        if self.transport is not None:
            self.transport.abortConnection()

    def stop_connecting(self) -> None:
        """Wait for the connection no more, if there is none yet."""
        if self.transport is None and self.connecting is not None:
            self.connecting.cancel()

    def _late(self) -> None:
        self._fail(ConnectionLost(f"the enclave was not verified within {_PATIENCE:g} seconds"))
        self.stop_connecting()

    def _over(self) -> None:
        if self._patience.active():
            self._patience.cancel()

    def _fail(self, error: BaseException) -> None:
        self.give_up()
        if not self._result.called:
            self._result.errback(Failure(error))


class AttestedTransport(TLSMemoryBIOProtocol):
    """The TLS of one connection, as its protocol sees it.

    :ivar identity: what the enclave has proven; None until it is accepted.
    """

    identity: Identity | None = None


class _Wrapping(TLSMemoryBIOFactory):
    """Puts TLS around connections to enclaves, without Twisted's aggregation of small writes."""

    protocol = AttestedTransport

    def around(self, attesting: _Attesting) -> TLSMemoryBIOProtocol:
        """A new connection's protocol."""
        return self.protocol(self, attesting)


@implementer(IStreamClientEndpoint)
class AttestedEndpoint:
    """See `AttestedTLS.wrap`."""

    def __init__(self, tls: AttestedTLS, endpoint: IStreamClientEndpoint, host: str, clock: IReactorTime) -> None:
        self._tls = tls
        self._endpoint = endpoint
        self._host = host
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `Refused`, or as the connection does. May be cancelled."""

        def cancel(_: object) -> None:
            attesting.give_up()
            attesting.stop_connecting()

        result: Deferred[IProtocol] = Deferred(cancel)
        attesting = _Attesting(self._tls, self._host, protocolFactory, result, self._clock)
        connecting = self._endpoint.connect(OneProtocol(lambda: self._tls.wrapping.around(attesting)))
        attesting.connecting = connecting

        def failed(failure: Failure) -> None:
            attesting.give_up()
            if not result.called:
                result.errback(failure)

        connecting.addErrback(failed)
        return result


def identity_of(transport: object) -> Identity | None:
    """What the enclave at the other end of *transport* has proven; None for a connection that is no accepted one."""
    return transport.identity if isinstance(transport, AttestedTransport) else None


def pin_of(spki: bytes) -> str:
    """A key as curl pins it (``--pinnedpubkey``; CURLOPT_PINNEDPUBLICKEY), which RFC 7469 calls its pin."""
    return f"sha256//{base64.b64encode(sha256(spki).digest()).decode('ascii')}"
