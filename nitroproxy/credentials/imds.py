"""Asks the instance metadata service for a role's credentials, by version 2 of its protocol only (IMDSv2).

A session token comes first: ``PUT /latest/api/token``, which a request that was forged through a proxy or a careless
application cannot make. Then ``GET /latest/meta-data/iam/security-credentials/ROLE``. (Amazon EC2 User Guide, "Use the
Instance Metadata Service".)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from nitroproxy.credentials.document import LONGEST_DOCUMENT, Credentials, CredentialsUnavailable, read_metadata
from nitroproxy.errors import ProxyError
from nitroproxy.http1.messages import Headers
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.upstream import Pool

#: Seconds that both requests may take together. An SDK waits for 2 seconds for the whole way.
_TIMEOUT: Final = 1.4
#: Seconds that a session token shall last (the most that there is), and after which another one is asked for.
_TOKEN_SECONDS: Final = 21600
_RENEW_TOKEN: Final = 20000.0
_TOKEN: Final = re.compile(rb"[!-~]{1,1024}")

_REASONS: Final = {
    403: "the metadata service refuses (403): it is switched off for this instance (its metadata options)",
    404: "the instance has no role of that name (404): see credentials.role, and the instance's profile",
}


class MetadataService:
    """The metadata service, at which one role is asked for.

    :param pool: leads to it.
    :param host: what the Host field says.
    :param seconds: a clock that is never set.
    """

    def __init__(self, pool: Pool, host: bytes, role: str, deadlines: Deadlines, seconds: Callable[[], float]) -> None:
        self._pool = pool
        self._host = host
        self._path = b"/latest/meta-data/iam/security-credentials/" + role.encode("ascii")
        self._deadlines = deadlines
        self._seconds = seconds
        self._token = b""
        self._token_until = 0.0

    async def credentials(self) -> Credentials:
        """What it has now.

        :raises CredentialsUnavailable: when it does not answer in time, or not with credentials.
        """
        until = self._seconds() + _TIMEOUT
        fresh = self._seconds() >= self._token_until
        if fresh:
            await self._new_token(until)
        status, body = await self._ask_role(until)
        if status == 401 and not fresh:  # The token has ended before its time, as it may.
            await self._new_token(until)
            status, body = await self._ask_role(until)
        if status != 200:
            raise CredentialsUnavailable(_REASONS.get(status, f"the metadata service answered {status}"))
        return read_metadata(body)

    async def _new_token(self, until: float) -> None:
        self._token_until = 0.0
        lifetime = [(b"X-aws-ec2-metadata-token-ttl-seconds", b"%d" % _TOKEN_SECONDS)]
        status, token = await self._fetch(b"PUT", b"/latest/api/token", lifetime, until, b"")
        if status != 200 or not _TOKEN.fullmatch(token):
            shown = _REASONS[403] if status == 403 else f"the metadata service gave no session token ({status})"
            raise CredentialsUnavailable(shown)
        self._token, self._token_until = token, self._seconds() + _RENEW_TOKEN

    async def _ask_role(self, until: float) -> tuple[int, bytes]:
        return await self._fetch(b"GET", self._path, [(b"X-aws-ec2-metadata-token", self._token)], until, None)

    async def _fetch(
        self, method: bytes, path: bytes, headers: Headers, until: float, body: bytes | None
    ) -> tuple[int, bytes]:
        try:
            return await fetch(
                self._pool,
                "imds",
                path,
                self._deadlines,
                max(until - self._seconds(), 0.0),
                LONGEST_DOCUMENT,
                method=method,
                headers=headers,
                body=body,
                host=self._host,
            )
        except ProxyError as error:
            raise CredentialsUnavailable(f"the metadata service does not answer: {error.detail}") from error
