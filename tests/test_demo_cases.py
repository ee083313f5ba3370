"""The demonstration's cases against a gateway that behaves, and against one that does each thing wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

from twisted.internet import reactor as _global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from nitroproxy.demo.cases import ANSWERED_CASES, Case, Setting
from nitroproxy.demo.client import DemoReactor, Gateway
from nitroproxy.demo.refusals import REFUSED_CASES
from nitroproxy.demo.results import CaseResult, Outcome
from nitroproxy.demo.runner import run_case
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, LocalUpstream

reactor: Final = cast(DemoReactor, _global_reactor)
TARGET: Final = "https://httpbin.test"
CANARY: Final = "canary-of-a-test"
LOCAL: Final = LocalUpstream(1, 2, 3, 4, 5, 6, 7, ca_file="ca.pem", pid=1)
CASES: Final[dict[str, Case]] = {case.name: case for case in (*ANSWERED_CASES, *REFUSED_CASES)}


class FakeGateway(Resource):
    """Answers the path form as a gateway in front of httpbin and of the local upstream would.

    :param faults: names of things to do wrong; see where each is looked up.
    """

    isLeaf = True

    def __init__(self, *faults: str) -> None:
        super().__init__()
        self.faults = faults
        self.counts = dict.fromkeys(BAD_CERTIFICATES, 0)
        self.requests: list[str] = []
        self._previous: dict[str, Any] = {}

    def render(self, request: Request) -> bytes | int:
        """Answer what a request for the target's URL in the path would be answered."""
        url = request.uri[1:].decode()
        self.requests.append(url)
        parts = urlsplit(url)
        if "the enclave is dead" in self.faults:
            return self._problem(request, 503, "enclave_unavailable", "not there")
        if "the target is dead" in self.faults and url.startswith(TARGET):
            return self._problem(request, 502, "dns_error", "no such name")
        trapped = {LOCAL.url(name): name for name in BAD_CERTIFICATES}.get(f"{parts.scheme}://{parts.netloc}")
        if trapped is not None:
            return self._trap(request, trapped)
        if parts.scheme == "http":
            return self._problem(request, 403, "plaintext_destination")
        if parts.hostname == "169.254.169.254":
            return self._problem(request, 403, "address_denied")
        if parts.port == 25:
            return self._problem(request, 403, "destination_not_allowed")
        name = parts.path.split("/")[1].replace("-", "_")
        answer: Callable[[Request, str, str], bytes | int] = getattr(self, f"_{name}")
        return answer(request, parts.path, parts.query)

    def _trap(self, request: Request, name: str) -> bytes | int:
        if "bytes reach bad servers" in self.faults:
            self.counts[name] += 1
        if "bad certificates are accepted" in self.faults:
            return b"reached"
        return self._problem(request, 502, "tls_certificate_error")

    def _problem(self, request: Request, status: int, error: str, detail: str = "refused") -> bytes:
        if "refusals are plain" in self.faults:
            request.setResponseCode(status)
            return b"refused"
        if "refusals are of another kind" in self.faults:
            error = "internal_error"
        request.setResponseCode(500 if "refusals have another status" in self.faults else status)
        request.setHeader("content-type", "application/problem+json")
        request.setHeader("proxy-status", f"nitroproxy-relay; error={error}")
        document = {"type": f"urn:nitroproxy:error:{error}", "status": status, "error": error, "detail": detail}
        return b"" if request.method == b"HEAD" else json.dumps(document).encode()

    def _json_answer(self, request: Request, answer: object) -> bytes:
        request.setHeader("content-type", "text/plain" if "types are lost" in self.faults else "application/json")
        if "bodies are lost" in self.faults:
            return b"{}"
        return json.dumps(answer).encode()

    def _seen_headers(self, request: Request) -> dict[str, str]:
        if "headers are lost" in self.faults:
            return {}
        return {name.decode(): values[-1].decode() for name, values in request.requestHeaders.getAllRawHeaders()}

    def _get(self, request: Request, path: str, query: str) -> bytes | int:
        values = parse_qs("" if "queries are lost" in self.faults else query, keep_blank_values=True)
        if "escapes are undone" in self.faults:
            values = parse_qs(unquote(query), keep_blank_values=True)
        args = {name: value[0] if len(value) == 1 else value for name, value in values.items()}
        answer = {"args": args, "headers": self._seen_headers(request)}
        if "answers are mixed up" in self.faults and self._previous:
            answer, self._previous = self._previous, answer
        self._previous = answer
        body = self._json_answer(request, answer)
        if request.method == b"HEAD" and "lengths are lost" in self.faults:
            request.finish()
            return NOT_DONE_YET
        return body

    def _headers(self, request: Request, path: str, query: str) -> bytes:
        return self._json_answer(request, {"headers": self._seen_headers(request)})

    def _post(self, request: Request, path: str, query: str) -> bytes:
        body = self._body(request)
        is_json = request.getHeader("content-type") == "application/json"
        data = "data:application/octet-stream;base64," + base64.b64encode(body).decode()
        return self._json_answer(request, {"data": data, "json": json.loads(body) if is_json else None})

    def _json(self, request: Request, path: str, query: str) -> bytes:
        return self._json_answer(request, {"slideshow": {"title": "Sample Slide Show"}})

    def _status(self, request: Request, path: str, query: str) -> bytes:
        request.setResponseCode(200 if "statuses are lost" in self.faults else int(path.rpartition("/")[2]))
        return b""

    def _redirect_to(self, request: Request, path: str, query: str) -> bytes:
        if "redirects are followed" not in self.faults:
            [location] = parse_qs(query)["url"]
            request.setResponseCode(307)
            if "redirects lead through the proxy" in self.faults:
                location = f"/{location}"
            request.setHeader("location", location if "redirects are rewritten" not in self.faults else "/elsewhere")
        return b""

    def _bytes(self, request: Request, path: str, query: str) -> bytes:
        return bytes(int(path.rpartition("/")[2]))

    def _stored_echo(self, request: Request, path: str, query: str) -> bytes:
        return self._body(request)

    def _body(self, request: Request) -> bytes:
        assert request.content is not None
        body: bytes = request.content.read()
        return body.replace(b"canary", b"parrot").replace(b"\0", b"\1") if "bodies are changed" in self.faults else body

    def _demo(self, request: Request, path: str, query: str) -> bytes:
        return self._json_answer(request, self.counts)

    def _drip(self, request: Request, path: str, query: str) -> bytes | int:
        count = int(parse_qs(query)["numbytes"][0])
        if "answers never end" in self.faults:
            request.write(b"*")
            return NOT_DONE_YET
        if "answers are held back" in self.faults:
            return b"*" * count

        def drip(left: int) -> None:
            request.write(b"*")
            if left > 1:
                reactor.callLater(0.01, drip, left - 1)
            else:
                request.finish()

        drip(count)
        return NOT_DONE_YET


class _Listener(WrappingFactory[ProtocolWrapper]):
    """Knows its connections, so that a test can end them and wait for that."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._ends: dict[Protocol, Deferred[None]] = {}

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)
        self._ends[p] = Deferred()

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self._ends.pop(p).callback(None)

    def close(self) -> Deferred[Any]:
        """Abort all connections; fires when they are gone."""
        ends = list(self._ends.values())
        for connection in list(self._ends):
            cast(ITCPTransport, connection.transport).abortConnection()
        return gatherResults(ends)


def serve(case: TestCase, resource: Resource) -> str:
    """Serve *resource* on loopback until the end of the test; its URL without a slash at its end."""
    listener = _Listener(Site(resource, timeout=None))
    port = reactor.listenTCP(0, cast(Any, listener), interface="127.0.0.1")
    case.addCleanup(port.stopListening)
    case.addCleanup(listener.close)
    address: IAddress = port.getHost()
    assert isinstance(address, IPv4Address)
    return f"http://127.0.0.1:{address.port}"


class TryCase(TestCase):
    """A case tried on a gateway of the test's."""

    async def try_case(
        self, name: str, *faults: str, upstream: LocalUpstream | None = LOCAL, timeout: float = 30
    ) -> tuple[CaseResult, FakeGateway]:
        fake = FakeGateway(*faults)
        gateway = Gateway(reactor, serve(self, fake))
        self.addCleanup(gateway.close)
        refused = {bad: LOCAL.url(bad) for bad in BAD_CERTIFICATES} if upstream else {}
        setting = Setting(TARGET, upstream, refused, CANARY)
        result, _ = await run_case(gateway, CASES[name], setting, timeout)
        return result, fake


class CaseTests(TryCase):
    """Each case passes with a gateway that behaves and fails with one that does not."""

    async def test_all_pass_through_a_good_gateway(self) -> None:
        """Every case passes when each answer is right, so that a failure means something."""
        for name in CASES:
            result, _ = await self.try_case(name)
            self.assertEqual((name, result.outcome, result.detail), (name, Outcome.PASSED, result.detail))

    async def test_each_fault_is_seen(self) -> None:
        """Every case fails when the gateway does what the case is there to notice."""
        faults = {
            "get": ("queries are lost",),
            "post_json": ("bodies are changed",),
            "custom_headers": ("headers are lost",),
            "json_api": ("types are lost",),
            "query_string": ("queries are lost", "escapes are undone"),
            "status_codes": ("statuses are lost",),
            "head": ("lengths are lost",),
            "redirect": ("redirects are followed", "redirects are rewritten"),
            "concurrent": ("answers are mixed up",),
            "large_body": ("bodies are changed",),
            "streaming": ("answers are held back",),
            **{
                f"refused_{name}": (
                    "bad certificates are accepted",
                    "bytes reach bad servers",
                    "refusals are of another kind",
                )
                for name in BAD_CERTIFICATES
            },
            "denied_address": ("refusals are of another kind", "refusals have another status"),
            "denied_port": ("refusals are plain",),
            "denied_plaintext": ("refusals are plain",),
        }
        self.assertEqual(set(faults), set(CASES))
        for name, wrongs in faults.items():
            for wrong in wrongs:
                result, _ = await self.try_case(name, wrong)
                seen = (name, wrong, result.outcome)
                self.assertIn(seen, [(name, wrong, Outcome.FAILED), (name, wrong, Outcome.ERROR)], result.detail)

    async def test_each_case_gives_the_proxy_s_reason(self) -> None:
        """A case that the proxy refuses gives its reason: from the document, also where the body is streamed, or from
        Proxy-Status for HEAD, which has no body."""
        for name in (case.name for case in ANSWERED_CASES):
            result, _ = await self.try_case(name, "the target is dead")
            self.assertEqual((name, result.outcome), (name, Outcome.ERROR))
            reason = "nitroproxy-relay; error=dns_error" if name == "head" else "dns_error: no such name"
            self.assertEqual(result.detail, f"the target cannot be reached: 502 {reason}", name)

    async def test_a_redirect_may_lead_through_the_proxy(self) -> None:
        """A Location in path form is right too: host_proxy.rewrite_location makes it so."""
        result, _ = await self.try_case("redirect", "redirects lead through the proxy")
        self.assertEqual((result.outcome, result.detail), (Outcome.PASSED, "307 to /https://example.org/elsewhere?a=b"))

    async def test_a_public_target_gets_a_smaller_body(self) -> None:
        """Without the local upstream the large body goes to httpbin's own resources, and a change of it is seen."""
        good, fake = await self.try_case("large_body", upstream=None)
        bad, _ = await self.try_case("large_body", "bodies are changed", upstream=None)
        self.assertEqual(good.outcome, Outcome.PASSED, good.detail)
        self.assertEqual(fake.requests, [f"{TARGET}/bytes/102400?seed=1", f"{TARGET}/post"])
        self.assertEqual(bad.outcome, Outcome.FAILED)

    async def test_the_concurrent_case_reports_each_request(self) -> None:
        """The concurrent case gives the report one latency for each of its requests."""
        result, fake = await self.try_case("concurrent")
        self.assertEqual((len(result.latencies), len(set(fake.requests))), (50, 50))

    async def test_the_canary_is_planted(self) -> None:
        """The canary goes out in a query string and in what a bad server would get."""
        _, plain = await self.try_case("get")
        _, refused = await self.try_case("refused_expired")
        self.assertIn(f"{TARGET}/get?canary={CANARY}", plain.requests)
        self.assertIn(f"{LOCAL.url('expired')}/?canary={CANARY}", refused.requests)
