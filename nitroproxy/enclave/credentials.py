"""Gives the application in the enclave the credentials of the instance's role, as SDKs read them from a container's
credentials provider: ``AWS_CONTAINER_CREDENTIALS_FULL_URI`` with ``AWS_CONTAINER_AUTHORIZATION_TOKEN``.

They come from the host (`nitroproxy.host.credentials`), which could give others: they say who pays, and nothing that
the enclave may rely on.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from twisted.web.server import Request

from nitroproxy.credentials.document import LONGEST_DOCUMENT, CredentialsUnavailable, read_container
from nitroproxy.enclave.local_client import check_direct
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.problem import read_problem
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.health import LocalRoot, answer_later, problem_page

_HOP: Final = "nitroproxy-enclave"
#: Where it is, as enclave-init tells the application.
PATH: Final = "/enclave/credentials"
#: Seconds that the host may take: a little less than an SDK waits (2 seconds), more than the host does.
_TIMEOUT: Final = 1.8


class CredentialsRequests:
    """Counts what applications asked for; lasts as long as the process."""

    def __init__(self) -> None:
        self._outcomes = Counter({"given": 0, "refused": 0, "unavailable": 0})

    def count(self, outcome: str) -> None:
        """Count one: ``given``, ``refused`` or ``unavailable``."""
        self._outcomes[outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """The metric."""
        family = CounterMetricFamily(
            "nitroproxy_credentials_requests", "Requests for the role's credentials.", labels=["outcome"]
        )
        for outcome, count in self._outcomes.items():
            family.add_metric([outcome], count)
        yield family


class CredentialsPage(LocalRoot):
    """``GET /enclave/credentials``, for who has the token. On the loopback listener only.

    :param relay: leads to the relay.
    :param token_sha256: of the token, in hex.
    """

    def __init__(self, relay: Pool, deadlines: Deadlines, token_sha256: str, requests: CredentialsRequests) -> None:
        super().__init__(_HOP)
        self._relay = relay
        self._deadlines = deadlines
        self._token_sha256 = token_sha256.encode("ascii")
        self._requests = requests

    def render_GET(self, request: Request) -> bytes | int:
        """Answer when the host has; refuse at once who may not ask."""
        try:
            check_direct(request)
            self._check_token(request)
        except ProxyError as error:
            self._requests.count("refused")
            return problem_page(error, _HOP, request)
        return answer_later(request, self._answer(request), _HOP)

    def _check_token(self, request: Request) -> None:
        tokens = request.requestHeaders.getRawHeaders(b"authorization") or []
        digest = sha256(tokens[0]).hexdigest().encode("ascii") if len(tokens) == 1 else b""
        if not hmac.compare_digest(digest, self._token_sha256):
            detail = "the Authorization field is not the token that the application has from enclave-init"
            raise ProxyError(Kind.PAGE_DENIED, detail)

    async def _answer(self, request: Request) -> bytes:
        try:
            found = await self._ask()
        except ProxyError as error:
            self._requests.count("unavailable")
            return problem_page(error, _HOP, request)
        self._requests.count("given")
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return found

    async def _ask(self) -> bytes:
        """What the relay gives, read and written anew.

        :raises ProxyError: when it gives none.
        """
        try:
            status, body = await fetch(
                self._relay, "relay", b"/credentials", self._deadlines, _TIMEOUT, LONGEST_DOCUMENT
            )
            if status == 200:
                return read_container(body).to_json()
        except CredentialsUnavailable as error:
            raise ProxyError(Kind.CREDENTIALS_UNAVAILABLE, f"the host's answer: {error}") from error
        told = read_problem(body)
        if told is not None and told.kind is Kind.CREDENTIALS_UNAVAILABLE:
            raise told
        detail = f"the host answered {status}: is credentials.role set there, too?"
        raise ProxyError(Kind.CREDENTIALS_UNAVAILABLE, detail)
