"""`python -m tests.limbo FILE [PROFILE]`: how `nitroproxy.tls` judges x509-limbo's certificate chains.

FILE is x509-limbo's ``limbo.json`` (a list of cases, or its object with ``testcases``); PROFILE is ``webpki`` (the
default) or ``openssl``. Each case that is about a server, names a peer and has the peer's private key is run: a TLS 1.3
server serves the chain over memory, the client trusts the case's roots through ``tls.ca_file`` and connects to the
peer's name, at the time that the case gives. A case that no server can serve counts for nothing. Prints the cases that
are judged otherwise than x509-limbo asks and the counts; exits with 1 below what is wanted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

from OpenSSL import SSL, crypto
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import Profile, TLSFileError, TLSSettings
from tests.wire import WaitingEndpoint, Wire

#: What must be reached under webpki: chains refused of those to be refused, accepted of those to be accepted.
_WANTED: Final = {"FAILURE": 112, "SUCCESS": 36}
_MOST_ROUNDS: Final = 20


class Unservable(Exception):
    """OpenSSL does not serve the case's certificate."""


def cases(path: str) -> Iterator[dict[str, Any]]:
    """The cases of the file at *path* that can be run."""
    content = json.loads(Path(path).read_bytes())
    for case in content["testcases"] if isinstance(content, dict) else content:
        if case["validation_kind"] == "SERVER" and case["expected_peer_name"] and case["peer_certificate_key"]:
            yield case


def judge(case: dict[str, Any], profile: Profile) -> str | None:
    """Why the client refuses *case*; None when it accepts it.

    :raises Unservable: if no server can be made.
    """
    server = _server(case)
    at = datetime.fromisoformat(case["validation_time"]) if case["validation_time"] else None
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as roots:
        roots.write("".join(case["trusted_certs"]))
        roots.flush()
        settings = TLSSettings(ca_file=roots.name, profile=profile)
        try:
            client = TLSClient(settings, wall=at.timestamp if at is not None else time.time)
        except TLSFileError as error:
            return str(error)
    if at is not None:
        context, _ = client._contexts.find("", 0)
        store = context.get_cert_store()
        assert store is not None
        store.set_time(at)
    inner = WaitingEndpoint()
    results: list[Any] = []
    connecting = client.wrap(inner, case["expected_peer_name"]["value"], 443).connect(Factory.forProtocol(Protocol))
    connecting.addBoth(results.append)
    _shake_hands(server, inner.accept(), results)
    failure = results[0] if results else None
    if isinstance(failure, Protocol):
        return None
    refusal = failure.value if isinstance(failure, Failure) else None
    if not isinstance(refusal, ProxyError) or refusal.kind is not Kind.TLS_CERTIFICATE_ERROR:
        raise RuntimeError(f"{case['id']}: neither accepted nor refused: {failure}")
    return refusal.detail


def _shake_hands(server: SSL.Connection, wire: Wire, results: list[Any]) -> None:
    """Carry bytes between *server* and *wire* until there is a result."""
    for _ in range(_MOST_ROUNDS):
        sent = wire.take()
        if sent:
            server.bio_write(sent)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            if not results:
                raise Unservable(str(error)) from error
        if results:
            return
        with suppress(SSL.WantReadError):
            wire.receive(server.bio_read(65536))


def _server(case: dict[str, Any]) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    try:
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, case["peer_certificate"].encode()))
        for pem in case["untrusted_intermediates"]:
            context.add_extra_chain_cert(crypto.load_certificate(crypto.FILETYPE_PEM, pem.encode()))
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, case["peer_certificate_key"].encode()))
        context.check_privatekey()
    except (SSL.Error, crypto.Error, ValueError) as error:
        raise Unservable(str(error)) from error
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def main(path: str, profile: str = "webpki") -> int:
    """Run the cases in *path*; the exit status."""
    if profile not in get_args(Profile):
        sys.exit(f"the profile is one of {', '.join(get_args(Profile))}, not {profile}")
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for case in cases(path):
        expected = case["expected_result"]
        try:
            reason = judge(case, "webpki" if profile == "webpki" else "openssl")
        except Unservable as error:
            print(f"not served  {case['id']}: {error}")
            continue
        total[expected] += 1
        if (reason is not None) == (expected == "FAILURE"):
            right[expected] += 1
        else:
            print(f"accepted    {case['id']}" if reason is None else f"refused     {case['id']}: {reason}")
    print(f"{profile}: {right['FAILURE']} of {total['FAILURE']} bad chains refused, ", end="")
    print(f"{right['SUCCESS']} of {total['SUCCESS']} good ones accepted")
    return int(profile == "webpki" and any(right[result] < least for result, least in _WANTED.items()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(*sys.argv[1:]))
