"""The enclave daemon's pages about attestation, and how they ask the process that has the NSM.

The host, and clients of the attested listener, get ``GET /enclave/attestation?nonce=``. Applications in the enclave get
the others too, on loopback alone: documents with fields of their own, what certificates carry of theirs, random bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.web.server import Request

from nitroproxy.attestation.evidence import MOST_REGISTERED, RESERVED
from nitroproxy.daemon.role import AskOnce
from nitroproxy.enclave.attestor import ANSWER_SECONDS, CHALLENGE, DOCUMENT, RANDOM, REGISTER
from nitroproxy.enclave.local_client import check_direct
from nitroproxy.enclave.nsm_device import RANDOM_BYTES, check_lengths
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.telemetry.health import LocalRoot, answer_later, problem_page

#: The page's path, and the beginning of the paths of all pages of this module.
ATTESTATION: Final = b"/enclave/attestation"
PREFIX: Final = b"/enclave/"

#: RFC 9052 section 2.
_COSE: Final = 'application/cose; cose-type="cose-sign1"'
_NONCE: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}){16,64}")
_COUNT: Final = re.compile(rb"[0-9]{1,3}")
_FIELDS: Final = ("nonce", "user_data", "public_key")

#: Gives the exported keying material of the connection of a request, or None where it has none.
Exported = Callable[[Request], bytes | None]


class Attesting:
    """Asks the process that has the NSM. When that does not answer, or cannot, every method raises ProxyError with
    `Kind.ATTESTATION_UNAVAILABLE`."""

    def __init__(self, ask_once: AskOnce) -> None:
        self._ask_once = ask_once

    async def challenge(self, nonce: bytes, exported: bytes | None) -> bytes:
        """A document with *nonce* that names this enclave's identity, and a connection by its exported keying material
        if that is given."""
        return await self._ask(CHALLENGE, [nonce, exported])

    async def document(
        self, use: str, *, nonce: bytes | None = None, user_data: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        """A document with these fields, whose lengths the caller has checked.

        :param use: one of `nitroproxy.telemetry.attestation.USES`.
        """
        return await self._ask(DOCUMENT, [use, nonce, user_data, public_key])

    async def register(self, data: bytes) -> None:
        """Have every certificate from now on carry *data*."""
        await self._ask(REGISTER, data)

    async def random(self) -> bytes:
        """256 random bytes from the NSM."""
        return await self._ask(RANDOM, None)

    async def _ask(self, what: str, about: object) -> bytes:
        answer = await self._ask_once(what, about, ANSWER_SECONDS)
        if answer is None:
            raise ProxyError(Kind.ATTESTATION_UNAVAILABLE, "the process that has the NSM does not answer")
        if "octets" not in answer:
            raise ProxyError(Kind.ATTESTATION_UNAVAILABLE, answer["problem"])
        octets: bytes = answer["octets"]
        return octets


def add_pages(root: LocalRoot, hop: str, attesting: Attesting, exported: Exported, *, own: bool) -> None:
    """Add the pages to *root*.

    :param own: those for applications in the enclave too.
    """
    enclave = below_prefix(root, hop)
    page = _Own(hop, attesting, exported) if own else _Challenge(hop, attesting, exported)
    enclave.putChild(b"attestation", page)
    if own:
        page.putChild(b"user-data", _UserData(hop, attesting))
        enclave.putChild(b"random", _Random(hop, attesting))


def below_prefix(root: LocalRoot, hop: str) -> LocalRoot:
    """The tree of pages below `PREFIX`, made now if there is none."""
    name = PREFIX.strip(b"/")
    found = root.getStaticEntity(name)
    if found is None:
        found = LocalRoot(hop)
        root.putChild(name, found)
    assert isinstance(found, LocalRoot)
    return found


class _Page(LocalRoot):
    def __init__(self, hop: str, attesting: Attesting) -> None:
        super().__init__(hop)
        self._attesting = attesting

    def _answer(self, request: Request, content_type: str, giving: Coroutine[Any, Any, bytes]) -> int:
        """Answer with what *giving* gives; its failures become problem documents."""

        async def answer() -> bytes:
            try:
                body = await giving
            except ProxyError as error:
                return problem_page(error, self._hop, request)
            if request.code != 204:
                request.setHeader("Content-Type", content_type)
            request.setHeader("Cache-Control", "no-store")
            return body

        return answer_later(request, answer(), self._hop)

    def _unusable(self, request: Request, why: str) -> bytes:
        return problem_page(ProxyError(Kind.MALFORMED_REQUEST, why), self._hop, request)


class _Challenge(_Page):
    """``GET /enclave/attestation?nonce=HEX``."""

    def __init__(self, hop: str, attesting: Attesting, exported: Exported) -> None:
        super().__init__(hop, attesting)
        self._exported = exported

    def render_GET(self, request: Request) -> int | bytes:
        """A document that carries the nonce."""
        nonces = request.args.get(b"nonce", [])
        if len(nonces) != 1 or len(request.args) != 1 or not _NONCE.fullmatch(nonces[0]):
            return self._unusable(
                request, "expected ?nonce= with 16 to 64 bytes in hexadecimal digits, and nothing else"
            )
        nonce = bytes.fromhex(nonces[0].decode("ascii"))
        return self._answer(request, _COSE, self._attesting.challenge(nonce, self._exported(request)))


class _Own(_Challenge):
    """That, and ``POST /enclave/attestation``."""

    def render_POST(self, request: Request) -> int | bytes:
        """A document with the fields that the application gives."""
        assert request.content is not None
        try:
            # Who could have a proxy in the enclave ask would get a document with a key of its own: and with that, KMS's
            # secrets.
            check_direct(request)
            fields = _read_fields(request.content.read())
            check_lengths(**fields)
        except ProxyError as error:
            return problem_page(error, self._hop, request)
        except ValueError as error:
            return self._unusable(request, str(error))
        if (fields["user_data"] or b"").startswith(RESERVED):
            return self._unusable(request, 'user_data: values that begin with "nitroproxy/" are nitroproxy\'s own')
        return self._answer(request, _COSE, self._attesting.document("application", **fields))


class _UserData(_Page):
    """``PUT /enclave/attestation/user-data``."""

    isLeaf = True

    def render_PUT(self, request: Request) -> int | bytes:
        """Have every certificate from now on carry the body."""
        assert request.content is not None
        data = request.content.read()
        try:
            check_direct(request)
        except ProxyError as error:
            return problem_page(error, self._hop, request)
        if len(data) > MOST_REGISTERED:
            return self._unusable(request, f"expected a body of at most {MOST_REGISTERED} bytes, got {len(data)}")

        async def register() -> bytes:
            await self._attesting.register(data)
            request.setResponseCode(204)
            return b""

        return self._answer(request, "", register())


class _Random(_Page):
    """``GET /enclave/random?bytes=N``."""

    isLeaf = True

    def render_GET(self, request: Request) -> int | bytes:
        """Random bytes."""
        counts = request.args.get(b"bytes", [b"32"])
        known = len(counts) == 1 and request.args.keys() <= {b"bytes"} and _COUNT.fullmatch(counts[0])
        count = int(counts[0]) if known else 0
        if not 1 <= count <= RANDOM_BYTES:
            return self._unusable(request, f"expected ?bytes= with a number 1 to {RANDOM_BYTES}, and nothing else")
        return self._answer(request, "application/octet-stream", self._some(count))

    async def _some(self, count: int) -> bytes:
        return (await self._attesting.random())[:count]


def _read_fields(body: bytes) -> dict[str, bytes | None]:
    """The fields of the document that a JSON object asks for: base64, or null, or absent.

    :raises ValueError: when it is none; the message says why, and nothing of what was in it.
    """
    expected = 'expected {"nonce": BASE64, "user_data": BASE64, "public_key": BASE64}, each of which may be null'
    try:
        given = json.loads(body, object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given.keys() <= set(_FIELDS):
        raise ValueError(expected)
    fields: dict[str, bytes | None] = dict.fromkeys(_FIELDS)
    for name, value in given.items():
        if value is None:
            continue
        try:
            fields[name] = base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ValueError(f"{name}: expected base64 or null") from None
    return fields


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def nothing_exported(request: Request) -> None:
    """An `Exported` for listeners whose connections have no TLS of ours."""
