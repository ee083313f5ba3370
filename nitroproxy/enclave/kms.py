"""The enclave's key for answers of AWS KMS, and the pages by which any SDK uses it. On the loopback listener only.

``POST /enclave/kms/recipient`` answers with the Recipient of a request to KMS: a fresh attestation document that names
the key. ``POST /enclave/kms/open`` opens the ``CiphertextForRecipient`` of KMS's answer. One key serves all processes
of the daemon as long as it runs; it is in the process that has the NSM, and in no document but KMS's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.web.server import Request

from nitroproxy.daemon.role import AskOnce
from nitroproxy.enclave.local_client import check_direct
from nitroproxy.enclave.pages import Attesting
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.kms.envelope import MAX_ENVELOPE, NotOpened
from nitroproxy.kms.recipient import RecipientKey, recipient_json
from nitroproxy.telemetry.health import LocalRoot, answer_later, problem_page

#: The questions to the process that has the key: for its public part, with None; to open an envelope, with its bytes.
#: The answer to the latter is a list: the secret, or nothing when it cannot be opened.
KEY: Final = "kms_key"
OPEN: Final = "kms_open"
#: Seconds for an answer: making the key takes a second at worst.
_TIMEOUT: Final = 5.0
#: Refused, whatever is wrong with it.
_NOT_OPENED: Final = "no CiphertextForRecipient for this enclave: ask KMS again, with a new Recipient"


class Recipient:
    """The key, made when it is first wanted. In one process of the daemon.

    :param make: makes the key.
    """

    def __init__(self, make: Callable[[], RecipientKey] = RecipientKey) -> None:
        self._make = make
        self._made: RecipientKey | None = None

    @property
    def answerers(self) -> Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]:
        """See `nitroproxy.daemon.role.Once`."""
        return {KEY: self._tell_key, OPEN: self._open}

    @property
    def _key(self) -> RecipientKey:
        if self._made is None:
            self._made = self._make()
        return self._made

    async def _tell_key(self, about: Any) -> Any:
        return self._key.public_key

    async def _open(self, about: Any) -> Any:
        try:
            return [self._key.open(about)]
        except NotOpened:
            return []


def add_kms_pages(enclave: LocalRoot, hop: str, attesting: Attesting, ask_once: AskOnce) -> None:
    """Add the pages to *enclave*, the tree below ``/enclave``."""
    kms = LocalRoot(hop)
    enclave.putChild(b"kms", kms)
    kms.putChild(b"recipient", _RecipientPage(hop, attesting, ask_once))
    kms.putChild(b"open", _OpenPage(hop, attesting, ask_once))


class _Page(LocalRoot):
    content_type: str

    def __init__(self, hop: str, attesting: Attesting, ask_once: AskOnce) -> None:
        super().__init__(hop)
        self._attesting = attesting
        self._ask_once = ask_once

    def render_POST(self, request: Request) -> int:
        """Answer, or say why not."""
        return answer_later(request, self._answer(request), self._hop)

    async def _answer(self, request: Request) -> bytes:
        assert request.content is not None
        try:
            check_direct(request)
            body = await self._make(request.content.read())
        except ProxyError as error:
            return problem_page(error, self._hop, request)
        request.setHeader("Content-Type", self.content_type)
        request.setHeader("Cache-Control", "no-store")
        return body

    async def _make(self, body: bytes) -> bytes:
        raise NotImplementedError

    async def _ask(self, what: str, about: object) -> Any:
        answer = await self._ask_once(what, about, _TIMEOUT)
        if answer is None:
            raise ProxyError(Kind.ATTESTATION_UNAVAILABLE, "the process that has the key does not answer")
        return answer


class _RecipientPage(_Page):
    content_type = "application/json"

    async def _make(self, body: bytes) -> bytes:
        if body:
            raise ProxyError(Kind.MALFORMED_REQUEST, "this page takes no body")
        public_key: bytes = await self._ask(KEY, None)
        return recipient_json(await self._attesting.document("kms", public_key=public_key))


class _OpenPage(_Page):
    content_type = "application/octet-stream"

    async def _make(self, body: bytes) -> bytes:
        opened = await self._ask(OPEN, body) if 0 < len(body) <= MAX_ENVELOPE else []
        if not opened:
            raise ProxyError(Kind.MALFORMED_REQUEST, _NOT_OPENED)
        plaintext: bytes = opened[0]
        return plaintext
