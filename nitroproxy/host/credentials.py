"""Passes the role's credentials from the credentials daemon to the enclave: a page of the relay, which only the
configured enclave's CID can ask.

The host daemon itself cannot reach the metadata service: its unit denies the address (`nitroproxy.credentials`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from twisted.web.server import Request

from nitroproxy.credentials.document import LONGEST_DOCUMENT, CredentialsUnavailable, read_container
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.problem import read_problem
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.health import LONGEST_HEALTH, Check, LocalRoot, answer_later, problem_page, read_health

_HOP: Final = "nitroproxy-relay"
#: Seconds that the credentials daemon may take: a little more than it waits for the metadata service. Less for health.
_TIMEOUT: Final = 1.6
_HEALTH_TIMEOUT: Final = 0.5


class CredentialsDaemon:
    """The credentials daemon, as the host daemon sees it. One for each process.

    :param pool: leads to its UNIX socket.
    """

    def __init__(self, pool: Pool, deadlines: Deadlines) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._requests = Counter({"given": 0, "unavailable": 0})

    async def credentials(self) -> bytes:
        """The credentials in the container form.

        :raises ProxyError: `Kind.CREDENTIALS_UNAVAILABLE`.
        """
        try:
            found = await self._ask()
        except ProxyError:
            self._requests["unavailable"] += 1
            raise
        self._requests["given"] += 1
        return found

    async def _ask(self) -> bytes:
        try:
            status, body = await fetch(
                self._pool, "credentials", b"/credentials", self._deadlines, _TIMEOUT, LONGEST_DOCUMENT
            )
            if status == 200:
                return read_container(body).to_json()
        except CredentialsUnavailable as error:
            raise ProxyError(Kind.CREDENTIALS_UNAVAILABLE, str(error)) from error
        except ProxyError as error:
            raise ProxyError(Kind.CREDENTIALS_UNAVAILABLE, error.detail) from error
        told = read_problem(body)
        detail = told.detail if told is not None else f"nitroproxy-credentials answered {status}"
        raise ProxyError(Kind.CREDENTIALS_UNAVAILABLE, detail, told.hop if told is not None else None)

    async def check(self) -> Check:
        """Whether it has credentials; at worst a warning, for the proxy works without them. Never raises."""
        try:
            _, body = await fetch(
                self._pool, "credentials", b"/health", self._deadlines, _HEALTH_TIMEOUT, LONGEST_HEALTH
            )
            check = read_health(body, ("credentials",))["credentials"]
        except ProxyError as error:
            return Check("warn", error.detail)
        except ValueError as error:
            return Check("warn", f"the health of nitroproxy-credentials cannot be read: {error}")
        return check if check.status == "pass" else Check("warn", check.output)

    def collect(self) -> Iterator[Metric]:
        """What the enclave asked for."""
        family = CounterMetricFamily(
            "nitroproxy_credentials_requests", "Requests for the role's credentials.", labels=["outcome"]
        )
        for outcome, count in self._requests.items():
            family.add_metric([outcome], count)
        yield family


class RelayedCredentials(LocalRoot):
    """``GET /credentials`` of the relay."""

    def __init__(self, daemon: CredentialsDaemon) -> None:
        super().__init__(_HOP)
        self._daemon = daemon

    def render_GET(self, request: Request) -> int:
        """Answer when the credentials daemon has."""
        return answer_later(request, self._answer(request), _HOP)

    async def _answer(self, request: Request) -> bytes:
        try:
            found = await self._daemon.credentials()
        except ProxyError as error:
            return problem_page(error, _HOP, request)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return found
