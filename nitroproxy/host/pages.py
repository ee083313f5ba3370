"""The gateway's own pages: ``/`` explains its use, ``/health`` has the state of each layer, ``/health/live`` and
``/health/ready`` are for orchestrators, ``/metrics`` has the metrics of both daemons, ``/status`` shows it all to a
person and ``/status.json`` to a program.

What the enclave answers is read up to a limit in bytes and within a time; neither can hold a page up.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.web.server import Request, Site

from nitroproxy.daemon.role import AskOnce
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.enclave_end import FORGET, WORDS
from nitroproxy.host.gateway import ENCLAVE
from nitroproxy.host.status_resource import StatusDocument, StatusResource
from nitroproxy.http1.messages import Request as ProxyRequest
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Local, Route
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.exposition import Collect, MetricsResource, metrics_of_both
from nitroproxy.telemetry.health import (
    LONGEST_HEALTH,
    Check,
    Health,
    HealthResource,
    LocalRoot,
    read_health,
    tls_verification,
)
from nitroproxy.telemetry.scrape import longest

_log: Final = Logger()

#: Seconds that the enclave may take for its health or metrics: `/health` itself answers within one.
_ENCLAVE_TIMEOUT = 0.85

#: What the enclave has something to say about, in the order a request passes it; its own `workers` are shown as
#: `enclave_workers`. Every other layer is the host's to examine.
_ENCLAVE_LAYERS: Final = (
    "enclave",
    "workers",
    "egress",
    "dns",
    "policy",
    "tls_verification",
    "attestation",
    "ingress",
    "transparent",
)

#: Failures before there was a connection to the enclave.
_NO_CONNECTION: Final = frozenset({Kind.ENCLAVE_UNAVAILABLE, Kind.CONNECTION_TIMEOUT})

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>nitroproxy</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;
padding:0 1rem}}</style>
<h1>nitroproxy {version}</h1>
<p>The gateway to the enclave. Put a URL after the slash: <code>curl http://{host}/https://httpbin.org/get</code>,
or use it as an HTTP proxy.</p>
<p><a href="/status">status</a> · <a href="/health">health</a> · <a href="/health/live">live</a> ·
<a href="/health/ready">ready</a> · <a href="/metrics">metrics</a></p>
</html>
"""


class HealthOfHost:
    """Examines the layers between an application on the host and the internet, in that order.

    :param ask_once: asks for the words with which the enclave ended, shown while it does not answer: see
        `nitroproxy.host.enclave_end`.
    :param ingress: this daemon leads connections from outside to the enclave.
    :param workers: examines the daemon's processes, if it has several.
    :param draining: whether the daemon is being stopped: then it is not ready.
    :param credentials: examines the credentials daemon, if there is to be one.
    """

    def __init__(
        self,
        pool: Pool,
        deadlines: Deadlines,
        version: str,
        ask_once: AskOnce,
        *,
        ingress: bool = False,
        verifies: bool,
        workers: Callable[[], Coroutine[Any, Any, Check]] | None = None,
        draining: Callable[[], bool] = lambda: False,
        credentials: Callable[[], Coroutine[Any, Any, Check]] | None = None,
    ) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._version = version
        self._ask_once = ask_once
        self._ingress = ingress
        self._verifies = verifies
        self._draining = draining
        more = {"workers": workers, "credentials": credentials}
        self._more = {layer: examine for layer, examine in more.items() if examine is not None}

    async def __call__(self) -> Health:
        """Examine the host daemon, and ask the enclave for its own health and that of the way out."""
        host = Check("fail", "the host daemon is being stopped") if self._draining() else Check("pass")
        health = Health("nitroproxy-host", self._version, {"host": host})
        examining = {layer: Deferred.fromCoroutine(examine()) for layer, examine in self._more.items()}
        ended = self._ask_once(WORDS, None)
        theirs: dict[str, Check] = {}
        reached = Check("pass")
        try:
            _, body = await fetch(self._pool, ENCLAVE, b"/health", self._deadlines, _ENCLAVE_TIMEOUT, LONGEST_HEALTH)
            theirs = read_health(body, _ENCLAVE_LAYERS)
            ended.addCallback(self._forget)
        except ProxyError as error:
            if error.kind in _NO_CONNECTION:
                reached = Check("fail", error.detail)
            words = await ended
            why = f"{error.detail}; {words}" if words else error.detail
            theirs = {"enclave": Check("fail", f"the enclave does not answer: {why}")}
        except ValueError as error:
            theirs = {"enclave": Check("fail", f"the enclave's health cannot be read: {error}")}
        health.checks["vsock"] = reached
        for layer, check in theirs.items():
            health.checks["enclave_workers" if layer == "workers" else layer] = check
        if self._ingress and reached.status == "pass" and "ingress" not in theirs:
            health.checks["ingress"] = Check("fail", "the enclave's configuration has no ingress.forwards")
        # Only the enclave knows whether it verifies. That this configuration does not is a warning whatever it says.
        if not self._verifies:
            health.checks["tls_verification"] = tls_verification(False)
        for layer, examined in examining.items():
            health.checks[layer] = await examined
        return health

    def _forget(self, words: str | None) -> None:
        if words:
            self._ask_once(FORGET, words)

    async def live(self) -> Health:
        """The health for a liveness probe: the daemon answers, and no other failure would be cured by restarting it."""
        return Health("nitroproxy-host", self._version, {"host": Check("pass")})


class MetricsOfBoth:
    """The metrics of this daemon and of the enclave's, in one scrape.

    :param own: collects this daemon's.
    :param processes: how many processes the enclave daemon has.
    """

    def __init__(self, own: Collect, pool: Pool, deadlines: Deadlines, processes: int = 1) -> None:
        self._own = own
        self._pool = pool
        self._deadlines = deadlines
        self._processes = processes

    async def __call__(self) -> Sequence[Metric]:
        """Collect both; an enclave that does not answer is reported as ``nitroproxy_up`` 0."""
        return await metrics_of_both(self._own, self._ask, self._processes)

    async def _ask(self) -> bytes | None:
        try:
            most = longest(self._processes)
            status, body = await fetch(self._pool, ENCLAVE, b"/metrics", self._deadlines, _ENCLAVE_TIMEOUT, most)
        except ProxyError as error:
            if error.kind is Kind.CONTENT_TOO_LARGE:
                _log.warn(
                    "the enclave's metrics cannot be read: {error}", event="metrics_unreadable", error=error.detail
                )
            return None
        return body if status == 200 else None


def gateway_site(health: HealthOfHost, metrics: MetricsOfBoth, version: str, ask_once: AskOnce) -> Site:
    """The gateway's resource tree: ``/``, ``/metrics``, ``/health`` with ``/health/live`` and ``/health/ready``,
    ``/status`` and ``/status.json``."""
    root = _root("nitroproxy-host", health, metrics, ask_once)
    root.putChild(b"", _Index("nitroproxy-host", version))
    return Site(root)


def health_site(health: HealthOfHost, metrics: MetricsOfBoth, ask_once: AskOnce | None) -> Site:
    """That of the health listener: the same without ``/``.

    :param ask_once: None: without the status, too.
    """
    return Site(_root("nitroproxy-health", health, metrics, ask_once))


def _root(hop: str, health: HealthOfHost, metrics: MetricsOfBoth, ask_once: AskOnce | None) -> LocalRoot:
    tree = HealthResource(hop, health)
    tree.putChild(b"ready", HealthResource(hop, health))
    tree.putChild(b"live", HealthResource(hop, health.live))
    root = LocalRoot(hop)
    root.putChild(b"health", tree)
    root.putChild(b"metrics", MetricsResource(hop, metrics))
    if ask_once is not None:
        root.putChild(b"status", StatusResource(hop, ask_once))
        root.putChild(b"status.json", StatusDocument(hop, ask_once))
    return root


class HealthRouter:
    """The health listener's routing: every request is for its pages."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def route(self, request: ProxyRequest, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        return Local(self._site, query=True)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: this listener has no tunnels."""


class _Index(LocalRoot):
    def __init__(self, hop: str, version: str) -> None:
        super().__init__(hop)
        self._version = version

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        host = html.escape((request.getHeader("host") or "localhost:8080").split("/")[0])
        return _PAGE.format(version=html.escape(self._version), host=host).encode("utf-8")
