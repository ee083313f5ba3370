"""OpenSSL's contexts: one for connections without a client certificate, one for each client certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from OpenSSL import SSL, crypto

from nitroproxy.policy import ByPattern, PatternError
from nitroproxy.tls.anchors import Anchor
from nitroproxy.tls.identities import Identity, load_identity
from nitroproxy.tls.settings import TLSFileError, TLSSettings

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class Contexts:
    """The context for each destination.

    :param verify: OpenSSL's verify callback (SSL_CTX_set_verify).
    :param protocols: those that are offered (ALPN, RFC 7301); none: the extension is not sent.
    :raises TLSFileError: naming every file of a client certificate that cannot be used.
    """

    def __init__(
        self, settings: TLSSettings, anchors: Sequence[Anchor], verify: VerifyCallback, protocols: Sequence[bytes]
    ) -> None:
        identities = _load_identities(settings)
        contexts: dict[str, tuple[SSL.Context, Identity | None]] = {
            one.pattern: (_with_identity(_context(settings, anchors, verify, protocols), one), one)
            for one in identities
        }
        try:
            self._by_pattern = ByPattern(contexts, (_context(settings, anchors, verify, protocols), None))
        except PatternError as error:
            raise TLSFileError([("client_certificates", str(error))]) from error

    def find(self, host: str, port: int) -> tuple[SSL.Context, Identity | None]:
        """The context for *host* and *port*, and the client certificate in it."""
        return self._by_pattern.of(host, port)


def _load_identities(settings: TLSSettings) -> list[Identity]:
    identities, problems = [], []
    for pattern, files in settings.client_certificates.items():
        try:
            identities.append(load_identity(pattern, files))
        except ValueError as error:
            problems.append(("client_certificates", f"{pattern}: {error}"))
    if problems:
        raise TLSFileError(problems)
    return identities


def _context(
    settings: TLSSettings, anchors: Sequence[Anchor], verify: VerifyCallback, protocols: Sequence[bytes]
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.min_version])
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    if protocols:
        context.set_alpn_protos(list(protocols))
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # An idle connection needs none: 41 KiB each instead of 70.
    if not settings.verify:
        context.set_verify(SSL.VERIFY_NONE)
        return context
    store = context.get_cert_store()
    assert store is not None
    for anchor in anchors:
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, anchor.der))
    # An intermediate certificate may be the anchor. Stricter rules wait for `webpki`: they depend on the anchor.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(SSL.VERIFY_PEER, verify)
    return context


def _with_identity(context: SSL.Context, identity: Identity) -> SSL.Context:
    leaf, *authorities = identity.chain
    try:
        context.use_certificate(leaf)
        for certificate in authorities:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
        context.check_privatekey()
    except SSL.Error as error:
        reason = ", ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "no reason given"
        problem = f"{identity.pattern}: OpenSSL does not take the certificate: {reason}"
        raise TLSFileError([("client_certificates", problem)]) from error
    return context
