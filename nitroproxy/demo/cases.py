"""What the demonstration tries: each case is one function, and `ANSWERED_CASES` is the table of them.

A case returns one sentence on what it saw, or raises `Unexpected`, `Unreachable` or `Skipped`; any other exception
means that there was no answer to judge. What has to be refused is in `refusals`.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred, gatherResults

from nitroproxy.demo.client import Answer, Client
from nitroproxy.demo.upstream_file import LocalUpstream
from nitroproxy.errors import Kind

CONCURRENT_REQUESTS: Final = 50
LARGE_BODY_BYTES: Final = 16 * 1024 * 1024
_HTTPBIN_MOST_BYTES: Final = 100 * 1024
_DRIPS: Final = 5
_DRIP_SECONDS: Final = 1

#: Answers of the proxy that mean that no request gets as far as the enclave, and that none reaches the target.
_NO_ENCLAVE: Final = frozenset({Kind.ENCLAVE_UNAVAILABLE, Kind.CONNECTION_LIMIT_REACHED, Kind.DRAINING})
_NO_TARGET: Final = _NO_ENCLAVE | {
    Kind.PLAINTEXT_DESTINATION,
    Kind.DESTINATION_DENIED,
    Kind.DESTINATION_NOT_ALLOWED,
    Kind.ADDRESS_DENIED,
    Kind.DNS_ERROR,
    Kind.DNS_TIMEOUT,
    Kind.CONNECTION_REFUSED,
    Kind.CONNECTION_TIMEOUT,
    Kind.UNREACHABLE,
    Kind.PROXY_LOOP_DETECTED,
    Kind.TLS_CERTIFICATE_ERROR,
    Kind.TLS_PROTOCOL_ERROR,
    Kind.TLS_ALERT_RECEIVED,
    Kind.RELAY_UNAVAILABLE,
}


class Unexpected(Exception):
    """The answer is not what it has to be; the message says how."""


class Unreachable(Exception):
    """The proxy says that it cannot reach the target; the message says why. Other cases would see the same.

    :ivar enclave: whether it is the enclave that cannot be reached, and so no destination at all.
    """

    def __init__(self, message: str, *, enclave: bool) -> None:
        super().__init__(message)
        self.enclave = enclave


class Skipped(Exception):
    """The case cannot be tried here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What a run's cases are tried on.

    :ivar target: the base URL of an httpbin, without a slash at its end.
    :ivar upstream: the local upstream, if the target is that.
    :ivar refused_urls: URLs of servers with bad certificates, by the name of what is wrong.
    :ivar canary: a text unique to the run, planted in headers, query strings and bodies.
    """

    target: str
    upstream: LocalUpstream | None
    refused_urls: Mapping[str, str]
    canary: str

    def canary_headers(self) -> dict[str, str]:
        """Headers that carry the canary."""
        return {"X-Canary": self.canary, "Authorization": f"Bearer {self.canary}"}


class Needs(enum.Enum):
    """What a case needs to be reachable, beyond the enclave."""

    TARGET = enum.auto()
    UPSTREAM = enum.auto()
    """The target, if that is the local upstream."""
    NOTHING = enum.auto()


@dataclass(frozen=True)
class Case:
    """A case's name and what it does; the first line of the function's docstring is its title."""

    name: str
    try_it: Callable[[Client, Setting], Awaitable[str]]
    needs: Needs = Needs.TARGET

    def needs_target(self, setting: Setting) -> bool:
        """Whether it cannot pass when *setting*'s target is unreachable."""
        return self.needs is Needs.TARGET or (self.needs is Needs.UPSTREAM and setting.upstream is not None)

    @property
    def title(self) -> str:
        """One sentence saying what the case shows."""
        return (self.try_it.__doc__ or self.name).strip().splitlines()[0]


def expect(what: str, seen: object, wanted: object) -> None:
    """Raise `Unexpected` unless *seen* equals *wanted*."""
    if seen != wanted:
        raise Unexpected(f"{what}: expected {_short(wanted)}, got {_short(seen)}")


def expect_status(answer: Answer, wanted: int) -> None:
    """Raise unless *answer* has the status *wanted*: `Unreachable` if it is the proxy's and says that it does not reach
    the target, else `Unexpected`. The message has the reason that the proxy gives.
    """
    if answer.status == wanted:
        return
    kind, reason = _failure(answer)
    if kind in _NO_TARGET:
        raise Unreachable(f"{answer.status} {reason}", enclave=kind in _NO_ENCLAVE)
    raise Unexpected(f"status: expected {wanted}, got {answer.status}{reason and ': '}{reason}")


def _failure(answer: Answer) -> tuple[Kind | None, str]:
    """The kind and the reason of a failure that the proxy reports; without a body (HEAD) they are in Proxy-Status."""
    if not answer.head.is_problem:
        return None, ""
    try:
        problem: Any = json.loads(answer.body)
        error, detail = str(problem["error"]), str(problem.get("detail", ""))
    except (ValueError, TypeError, KeyError):
        reason = answer.head.header("Proxy-Status")
        token = reason.rpartition("error=")[2]
        return next((kind for kind in _NO_TARGET if kind.proxy_status == token), None), reason
    return Kind.from_public_name(error), f"{error}: {detail}" if detail else error


async def get(client: Client, setting: Setting) -> str:
    """A GET reaches the target with its path and query, and its answer comes back."""
    answer = await client.fetch("GET", f"{setting.target}/get?canary={setting.canary}")
    expect_status(answer, 200)
    expect("args.canary", answer.json()["args"].get("canary"), setting.canary)
    return "the target saw the path and the query as they were sent"


async def post_json(client: Client, setting: Setting) -> str:
    """A POST's JSON body reaches the target unchanged."""
    sent = {"canary": setting.canary, "text": "Grüße, 你好", "numbers": [0, -1, 2.5, 10**15], "nothing": None}
    answer = await client.fetch(
        "POST",
        f"{setting.target}/post",
        headers={"Content-Type": "application/json"},
        body=json.dumps(sent, ensure_ascii=False).encode(),
    )
    expect_status(answer, 200)
    expect("the body as the target parsed it", answer.json()["json"], sent)
    return "the target parsed the same document"


async def custom_headers(client: Client, setting: Setting) -> str:
    """Headers of the application's own, credentials included, reach the target."""
    sent = {**setting.canary_headers(), "X-Demo-Number": "42", "User-Agent": "nitroproxy-demo"}
    answer = await client.fetch("GET", f"{setting.target}/headers", headers=sent)
    expect_status(answer, 200)
    seen = {name.lower(): value for name, value in answer.json()["headers"].items()}
    for name, value in sent.items():
        expect(f"header {name}", seen.get(name.lower()), value)
    return f"{len(sent)} headers arrived unchanged"


async def json_api(client: Client, setting: Setting) -> str:
    """A JSON API's document comes back with its media type and parses."""
    answer = await client.fetch("GET", f"{setting.target}/json", headers={"Accept": "application/json"})
    expect_status(answer, 200)
    expect("Content-Type", answer.head.header("Content-Type").partition(";")[0], "application/json")
    title = answer.json()["slideshow"]["title"]
    return f"the document is called {title!r}"


async def query_string(client: Client, setting: Setting) -> str:
    """A query string with escapes, spaces, repeated and empty values arrives as it was sent."""
    sent = [("text", "a b+c/d?e=f&g#h%"), ("word", "naïve 代理"), ("list", "1"), ("list", "2"), ("empty", "")]
    answer = await client.fetch("GET", f"{setting.target}/get?{urlencode(sent)}")
    expect_status(answer, 200)
    wanted = {"text": "a b+c/d?e=f&g#h%", "word": "naïve 代理", "list": ["1", "2"], "empty": ""}
    expect("args", answer.json()["args"], wanted)
    return f"{len(sent)} parameters arrived unchanged"


async def status_codes(client: Client, setting: Setting) -> str:
    """The target's status codes come back as they are, errors included."""
    codes = (200, 204, 404, 418, 500, 503)
    for code in codes:
        answer = await client.fetch("GET", f"{setting.target}/status/{code}")
        expect_status(answer, code)
    return "came back unchanged: " + ", ".join(map(str, codes))


async def head(client: Client, setting: Setting) -> str:
    """A HEAD gives the headers of the GET and no body, and the connection stays usable."""
    answer = await client.fetch("HEAD", f"{setting.target}/get")
    expect_status(answer, 200)
    expect("body", answer.body, b"")
    length = answer.head.header("Content-Length")
    if not length.isdigit() or int(length) == 0:
        raise Unexpected(f"Content-Length: expected that of the GET, got {length!r}")
    expect_status(await client.fetch("GET", f"{setting.target}/get"), 200)
    return f"Content-Length {length}, no body, and the next request was answered"


async def redirect(client: Client, setting: Setting) -> str:
    """A redirect is handed to the client, not followed; its Location may be in path form, to lead through the proxy."""
    location = "https://example.org/elsewhere?a=b"
    answer = await client.fetch("GET", f"{setting.target}/redirect-to?url={quote(location, safe='')}&status_code=307")
    expect_status(answer, 307)
    seen = answer.head.header("Location")
    # With host_proxy.rewrite_location it leads through the proxy again.
    expect("Location", seen.removeprefix("/"), location)
    return f"307 to {seen}"


async def concurrent(client: Client, setting: Setting) -> str:
    """Many requests at once each get their own answer."""

    async def one(number: str) -> None:
        started = client.clock()
        answer = await client.fetch("GET", f"{setting.target}/get?number={number}", headers={"X-Number": number})
        client.took((client.clock() - started) * 1000)
        expect_status(answer, 200)
        seen = answer.json()
        expect("the number in the query", seen["args"].get("number"), number)
        expect("the number in the header", seen["headers"].get("X-Number"), number)

    numbers = [uuid.uuid4().hex for _ in range(CONCURRENT_REQUESTS)]
    await gatherResults([Deferred.fromCoroutine(one(number)) for number in numbers], consumeErrors=True)
    return f"{len(numbers)} requests at once, none mixed up"


async def large_body(client: Client, setting: Setting) -> str:
    """A large binary body goes up and comes down with the same SHA-256."""
    if setting.upstream is None:
        return await _body_there_and_back(client, setting)
    sent = setting.canary.encode() + os.urandom(LARGE_BODY_BYTES - len(setting.canary))
    digest = hashlib.sha256()
    answer = await client.transfer(
        "POST",
        f"{setting.target}/stored-echo",
        digest.update,
        headers={"Content-Type": "application/octet-stream"},
        body=sent,
    )
    expect_status(answer, 200)
    wanted = hashlib.sha256(sent).hexdigest()
    expect("SHA-256", digest.hexdigest(), wanted)
    return f"{len(sent) >> 20} MiB each way, SHA-256 {wanted[:16]}…"


async def _body_there_and_back(client: Client, setting: Setting) -> str:
    # A public httpbin gives and takes about 100 KiB: what it gives is sent to it, and what it got is compared.
    down = await client.fetch("GET", f"{setting.target}/bytes/{_HTTPBIN_MOST_BYTES}?seed=1")
    expect_status(down, 200)
    expect("bytes received", len(down.body), _HTTPBIN_MOST_BYTES)
    up = await client.fetch(
        "POST", f"{setting.target}/post", headers={"Content-Type": "application/octet-stream"}, body=down.body
    )
    expect_status(up, 200)
    echoed = base64.b64decode(up.json()["data"].partition("base64,")[2])
    wanted = hashlib.sha256(down.body).hexdigest()
    expect("SHA-256", hashlib.sha256(echoed).hexdigest(), wanted)
    return f"{len(down.body) >> 10} KiB each way, SHA-256 {wanted[:16]}…"


async def streaming(client: Client, setting: Setting) -> str:
    """A slow answer is delivered piece by piece, before it is complete."""
    arrivals: list[float] = []
    started = client.clock()
    answer = await client.transfer(
        "GET",
        f"{setting.target}/drip?numbytes={_DRIPS}&duration={_DRIP_SECONDS}&delay=0",
        lambda _: arrivals.append((client.clock() - started) * 1000),
    )
    expect_status(answer, 200)
    if len(arrivals) < 2:
        raise Unexpected(
            f"expected at least 2 deliveries of {_DRIPS} slow bytes, got {len(arrivals)}: it was held back"
        )
    return f"{len(arrivals)} deliveries, the first after {arrivals[0]:.0f} ms, the last after {arrivals[-1]:.0f} ms"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


#: In the order in which they are tried.
ANSWERED_CASES: Final = (
    Case("get", get),
    Case("post_json", post_json),
    Case("custom_headers", custom_headers),
    Case("json_api", json_api),
    Case("query_string", query_string),
    Case("status_codes", status_codes),
    Case("head", head),
    Case("redirect", redirect),
    Case("concurrent", concurrent),
    Case("large_body", large_body),
    Case("streaming", streaming),
)
