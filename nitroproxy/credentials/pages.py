"""What the credentials daemon serves at its UNIX socket: the credentials, and its health."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.web.server import Request, Site

from nitroproxy.credentials.document import CredentialsUnavailable
from nitroproxy.credentials.keeper import Keeper
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request as ProxyRequest
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.health import Check, Health, HealthResource, LocalRoot, answer_later, problem_page

#: The daemon's name in messages and problem documents.
HOP: Final = "nitroproxy-credentials"


class CredentialsPage(LocalRoot):
    """``GET /credentials``: the container form, or 503."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(HOP)
        self._keeper = keeper

    def render_GET(self, request: Request) -> int:
        """Answer when the keeper has them."""
        return answer_later(request, self._answer(request), HOP)

    async def _answer(self, request: Request) -> bytes:
        try:
            credentials = await self._keeper.get()
        except CredentialsUnavailable as error:
            return problem_page(ProxyError(Kind.CREDENTIALS_UNAVAILABLE, str(error)), HOP, request)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return credentials.to_json()


def credentials_site(keeper: Keeper, version: str) -> Site:
    """The daemon's pages."""

    async def examine() -> Health:
        try:
            credentials = await keeper.get()
        except CredentialsUnavailable as error:
            return Health(HOP, version, {"credentials": Check("fail", str(error))})
        until = f"until {credentials.expiration}"
        check = Check("warn", f"{until}; {keeper.trouble}") if keeper.trouble else Check("pass", until)
        return Health(HOP, version, {"credentials": check})

    root = LocalRoot(HOP)
    root.putChild(b"credentials", CredentialsPage(keeper))
    root.putChild(b"health", HealthResource(HOP, examine))
    return Site(root)


class CredentialsRouter:
    """Every request is for a page."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def route(self, request: ProxyRequest, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        return Local(self._site, longest_body=0)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: there are no tunnels."""
