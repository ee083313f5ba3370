"""``/status``, the page for a person, and ``/status.json``, the document that it shows.

Any process of the daemon serves them; the one that has the document is asked for it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from twisted.web.server import Request

from nitroproxy.daemon.role import AskOnce
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.status import Status
from nitroproxy.host.status_page import POLICY, Page
from nitroproxy.host.status_words import wanted
from nitroproxy.telemetry.health import LocalRoot, answer_later, problem_page

#: The question for the document, as plain values.
STATUS: Final = "status"


class _Asking(LocalRoot):
    """A page that is made of the document.

    :param ask_once: see `nitroproxy.daemon.role.AskOnce`.
    """

    def __init__(self, hop: str, ask_once: AskOnce) -> None:
        super().__init__(hop)
        self._ask_once = ask_once

    def render_GET(self, request: Request) -> int:
        """Ask, then answer."""
        return answer_later(request, self._answer(request), self._hop)

    async def _answer(self, request: Request) -> bytes:
        document = await self._ask_once(STATUS, None)
        if document is None:
            error = ProxyError(Kind.INTERNAL_ERROR, "the daemon's first process, which has the status, does not answer")
            return problem_page(error, self._hop, request)
        request.setHeader("Cache-Control", "no-store")
        return self._shown(document, request)

    def _shown(self, document: Any, request: Request) -> bytes:
        raise NotImplementedError


class StatusDocument(_Asking):
    """The document."""

    def _shown(self, document: Any, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return msgspec.json.encode(document) + b"\n"


class StatusResource(_Asking):
    """The page. ``lang`` chooses its language, ``refresh=0`` keeps it from loading itself again."""

    def _shown(self, document: Any, request: Request) -> bytes:
        language = wanted(_parameter(request, b"lang"), request.getHeader("Accept-Language") or "")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Content-Language", "zh-CN" if language == "zh" else "en")
        request.setHeader("Vary", "Accept-Language")
        request.setHeader("Content-Security-Policy", POLICY)
        request.setHeader("Referrer-Policy", "no-referrer")
        page = Page(msgspec.convert(document, Status), language, refresh=_parameter(request, b"refresh") != "0")
        return str(page).encode("utf-8", "replace")


def _parameter(request: Request, name: bytes) -> str:
    values: list[bytes] = (request.args or {}).get(name, [])
    return values[0].decode("ascii", "replace") if values else ""
