"""Health of a daemon, layer by layer, as ``application/health+json`` (draft-inadarei-api-health-check-06).

A `Health` is a status for each layer; the whole is as good as its worst. `HealthResource` examines anew for every
request, so its answer is never older than the request.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.problem import METHODS, problem
from nitroproxy.proxy.trace import REQUEST_ID
from nitroproxy.telemetry.logs import printable

_log: Final = Logger()

#: Bytes of another daemon's health document, at most; characters of what a layer says of itself.
LONGEST_HEALTH: Final = 16 * 1024
_LONGEST_OUTPUT: Final = 512

Status = Literal["pass", "warn", "fail"]
_WORST_FIRST: Final[tuple[Status, ...]] = ("fail", "warn", "pass")


@dataclass(frozen=True, slots=True)
class Check:
    """One layer's state: *output* says why it is not ``pass``, or what it was seen to be."""

    status: Status
    output: str = ""


@dataclass(slots=True)
class Health:
    """The layers of one daemon, in the order a request passes them."""

    service: str
    version: str
    checks: dict[str, Check] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst of the checks."""
        found = {check.status for check in self.checks.values()}
        return next((status for status in _WORST_FIRST if status in found), "pass")

    def to_json(self) -> bytes:
        """The health document."""
        checks = {
            layer: [{"status": check.status, **({"output": check.output} if check.output else {})}]
            for layer, check in self.checks.items()
        }
        document = {"status": self.status, "serviceId": self.service, "version": self.version, "checks": checks}
        return json.dumps(document, indent=2).encode("ascii") + b"\n"


def tls_verification(verifies: bool) -> Check:
    """The check that says whether upstream certificates are verified."""
    return Check("pass", "on") if verifies else Check("warn", "OFF: upstream certificates are not verified")


def same_policy(enclave: str, relay: str) -> Check:
    """The check that says whether enclave and relay enforce the same rules, given the fingerprints of theirs. Where
    they differ, what passes is what both allow."""
    if enclave == relay:
        return Check("pass", enclave)
    return Check("warn", f"egress.allow and egress.deny differ: the enclave has {enclave}, the relay {relay}")


def read_health(body: bytes, layers: Sequence[str]) -> dict[str, Check]:
    """The checks of *layers* in another daemon's health document, cut to size, with what does not print escaped.

    What the document says of any other layer is left out: the reader examines those itself.

    :param layers: those that the other daemon has to say something about; without the first it is no such document.
    :raises ValueError: when *body* is not one.
    """
    try:
        document: Any = json.loads(body)
        told = {layer: document["checks"][layer][0] for layer in layers if layer in document["checks"]}
        checks = {
            layer: Check(entry["status"], printable(str(entry.get("output", ""))[:_LONGEST_OUTPUT]))
            for layer, entry in told.items()
            if entry["status"] in _WORST_FIRST
        }
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("not a health document") from error
    if layers[0] not in checks:
        raise ValueError(f"it does not say how the layer {layers[0]} is")
    return checks


class LocalRoot(Resource):
    """The root of a daemon's own pages; answers 404 and 405 as problem documents.

    :param hop: the daemon's name in problem documents.
    """

    def __init__(self, hop: str) -> None:
        super().__init__()
        self._hop = hop

    def getChild(self, path: bytes, request: Request) -> Resource:
        """404."""
        return _NotFound(self._hop)

    def render(self, request: Request) -> bytes | int:
        """Render, if the method is one that the page has."""
        # twisted.web has render_HEAD for every page, by way of its render_GET.
        names = ("GET", "HEAD", "POST", "PUT")
        allowed = [name for name in names if hasattr(self, f"render_{name.replace('HEAD', 'GET')}")]
        if request.method.decode("ascii", "replace") in allowed:
            page: bytes | int = super().render(request)
            return page
        error = ProxyError(Kind.METHOD_NOT_ALLOWED, f"this page knows {', '.join(allowed) or 'no method'}")
        return problem_page(error, self._hop, request, ", ".join(allowed).encode("ascii"))


class _NotFound(Resource):
    isLeaf = True

    def __init__(self, hop: str) -> None:
        super().__init__()
        self._hop = hop

    def render(self, request: Request) -> bytes:
        error = ProxyError(
            Kind.NOT_FOUND, "not a page of this proxy; to reach a site put its URL after the slash: /https://host/path"
        )
        return problem_page(error, self._hop, request)


def problem_page(error: ProxyError, hop: str, request: Request, methods: bytes = METHODS) -> bytes:
    """The body of *request*'s answer as a problem document; sets its status and headers. For a page to return."""
    headers, body = problem(error, hop, request.getHeader(REQUEST_ID.decode("ascii")) or "", methods)
    request.setResponseCode(error.kind.status)
    for name, value in headers:
        request.responseHeaders.setRawHeaders(name, [value])
    return body


class HealthResource(LocalRoot):
    """Serves *examine*'s result: 200 while nothing fails, 503 otherwise. May have pages below it.

    Requests that come while an examination is under way share its result.
    """

    def __init__(self, hop: str, examine: Callable[[], Awaitable[Health]]) -> None:
        super().__init__(hop)
        self._examine = examine
        self._asking: list[Deferred[Health]] = []

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Itself, with a slash at the end; otherwise 404."""
        return self if not path else super().getChild(path, request)

    def render_GET(self, request: Request) -> int:
        """Examine, then answer."""
        return answer_later(request, self._answer(request), self._hop)

    async def _answer(self, request: Request) -> bytes:
        health = await self._examined()
        request.setResponseCode(503 if health.status == "fail" else 200)
        request.setHeader("Content-Type", "application/health+json")
        request.setHeader("Cache-Control", "no-store")
        return health.to_json()

    async def _examined(self) -> Health:
        mine: Deferred[Health] = Deferred()
        self._asking.append(mine)
        if len(self._asking) == 1:
            examined = Deferred.fromCoroutine(self._examine_once())
            examined.addBoth(self._tell)
        return await mine

    async def _examine_once(self) -> Health:
        return await self._examine()

    def _tell(self, outcome: Health | Failure) -> None:
        asking, self._asking = self._asking, []
        for waiting in asking:
            if isinstance(outcome, Failure):
                waiting.errback(outcome)
            else:
                waiting.callback(outcome)


def answer_later(request: Request, answer: Coroutine[Any, Any, bytes], hop: str) -> int:
    """Answer *request* with the body that *answer* gives when it is there; for a page of *hop* to return.

    When *answer* raises, that is logged and the client gets a problem document with status 500.
    """
    gone: list[object] = []
    request.notifyFinish().addErrback(gone.append)

    def write(body: bytes) -> None:
        if not gone:
            request.setHeader("Content-Length", str(len(body)))
            request.write(body)
            request.finish()

    def failed(failure: Failure) -> None:
        _log.failure("a page could not be made", failure, event="page_failed")
        if not gone:
            write(
                problem_page(ProxyError(Kind.INTERNAL_ERROR, "the page could not be made: see the log"), hop, request)
            )

    Deferred.fromCoroutine(answer).addCallbacks(write, failed)
    return NOT_DONE_YET
