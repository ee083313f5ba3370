"""What the proxy must refuse: servers with bad certificates, and destinations that the policy denies.

A refusal is a problem document (RFC 9457) of the right kind; where the server is the local upstream's, it must also
have received no application byte.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from nitroproxy.demo.cases import Case, Needs, Setting, Skipped, Unexpected, expect, expect_status
from nitroproxy.demo.client import Answer, Client
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES, BYTES_RECEIVED_PATH
from nitroproxy.errors import Kind

#: A name that no resolver knows (RFC 6761 section 6.4): should the policy let it through, it still leads nowhere.
_NOWHERE: Final = "nitroproxy-demo.invalid"


async def denied_address(client: Client, setting: Setting) -> str:
    """The instance metadata service's address is refused."""
    return await _denied(
        client,
        setting,
        "https://169.254.169.254/latest/meta-data/",
        {Kind.ADDRESS_DENIED, Kind.DESTINATION_NOT_ALLOWED},
    )


async def denied_port(client: Client, setting: Setting) -> str:
    """A port that the policy does not allow is refused."""
    return await _denied(client, setting, f"https://{_NOWHERE}:25/", {Kind.DESTINATION_NOT_ALLOWED})


async def denied_plaintext(client: Client, setting: Setting) -> str:
    """A destination without TLS is refused."""
    return await _denied(client, setting, f"http://{_NOWHERE}/", {Kind.PLAINTEXT_DESTINATION})


async def _denied(client: Client, setting: Setting, url: str, kinds: Collection[Kind]) -> str:
    answer = await client.fetch("GET", url, headers=setting.canary_headers())
    return f"403 {_expect_problem(answer, 403, kinds)}"


def bad_certificate(name: str) -> Case:
    """The case of the server whose certificate is wrong as *name* says, a key of `BAD_CERTIFICATES`."""

    async def refused(client: Client, setting: Setting) -> str:
        url = setting.refused_urls.get(name)
        if url is None:
            raise Skipped(f"no such server was named: use --upstream, or --refusals {name}=URL")
        before = await _bytes_received(client, setting, name)
        answer = await client.fetch(
            "POST",
            f"{url}/?canary={setting.canary}",
            headers=setting.canary_headers(),
            body=setting.canary.encode(),
        )
        after = await _bytes_received(client, setting, name)
        error = _expect_problem(answer, 502, {Kind.TLS_CERTIFICATE_ERROR})
        if before is None or after is None:
            return f"502 {error} (what the server received cannot be seen from here)"
        expect("application bytes that the server received", after - before, 0)
        return f"502 {error}, and the server received 0 application bytes"

    refused.__doc__ = f"A server is refused because {BAD_CERTIFICATES[name]}."
    return Case(f"refused_{name}", refused, Needs.UPSTREAM)


async def _bytes_received(client: Client, setting: Setting, name: str) -> int | None:
    if setting.upstream is None:
        return None
    answer = await client.aside().fetch("GET", setting.target + BYTES_RECEIVED_PATH)
    expect_status(answer, 200)
    return int(answer.json()[name])


def _expect_problem(answer: Answer, status: int, kinds: Collection[Kind]) -> str:
    """Raise `Unexpected` unless *answer* is the problem document of one of *kinds*; its public name."""
    expect_status(answer, status)
    expect("Content-Type", answer.head.header("Content-Type").partition(";")[0], "application/problem+json")
    problem = answer.json()
    expect("status in the problem document", problem.get("status"), status)
    names = sorted(kind.public_name for kind in kinds)
    error = problem.get("error")
    if error not in names:
        raise Unexpected(f"error in the problem document: expected {' or '.join(names)}, got {error!r}")
    return str(error)


#: In the order in which they are tried.
REFUSED_CASES: Final = (
    *(bad_certificate(name) for name in BAD_CERTIFICATES),
    Case("denied_address", denied_address, Needs.NOTHING),
    Case("denied_port", denied_port, Needs.NOTHING),
    Case("denied_plaintext", denied_plaintext, Needs.NOTHING),
)
