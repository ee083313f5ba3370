"""A stand-in for the instance metadata service, version 2, on this machine's loopback."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

ROLE: Final = "enclave-role"
_LIFETIME: Final = b"x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN: Final = b"x-aws-ec2-metadata-token"


def metadata_document(**changes: Any) -> bytes:
    """What the service answers; None leaves a field out."""
    fields = {
        "Code": "Success",
        "LastUpdated": "2026-11-28T00:00:00Z",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAEXAMPLEEXAMPLE00",
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "Token": "IQoJb3JpZ2luX2VjE" * 60 + "==",
        "Expiration": "2026-11-28T06:00:00Z",
    } | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode("utf-8")


class Imds(Resource):
    """Answers as EC2's does: nothing without a session token.

    :ivar requests: method and path of each request.
    :ivar generation: counts new credentials; their key id ends with it.
    :ivar lifetime: seconds that credentials are valid from the request on.
    :ivar status: if set, the status of every answer.
    :ivar role: the one that the instance has.
    :ivar renews: each answer has new credentials.
    :ivar secrets: what was given out of which nobody may log anything.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.generation = 0
        self.lifetime = 6 * 3600.0
        self.status = 0
        self.role = ROLE
        self.renews = False
        self.secrets: set[str] = set()
        self._tokens: set[bytes] = set()

    def site(self) -> Site:
        """For a listener."""
        return Site(self)

    def forget_tokens(self) -> None:
        """All session tokens have ended."""
        self._tokens.clear()

    def render(self, request: Request) -> bytes:
        """Answer."""
        path = request.path.decode("ascii")
        self.requests.append(f"{request.method.decode('ascii')} {path}")
        if self.status:
            request.setResponseCode(self.status)
            return b""
        if path == "/latest/api/token":
            return self._render_token(request)
        if request.requestHeaders.getRawHeaders(_TOKEN, [b""])[0] not in self._tokens:
            request.setResponseCode(401)
            return b""
        if request.method != b"GET" or path != f"/latest/meta-data/iam/security-credentials/{self.role}":
            request.setResponseCode(404)
            return b"<html>not found</html>"
        expiration = datetime.now(UTC) + timedelta(seconds=self.lifetime)
        self.generation += self.renews
        key = f"ASIAEXAMPLEEXAMPLE{self.generation:02}"
        body = metadata_document(AccessKeyId=key, Expiration=expiration.strftime("%Y-%m-%dT%H:%M:%SZ"))
        given = json.loads(body)
        self.secrets |= {given["SecretAccessKey"], given["Token"]}
        return body

    def _render_token(self, request: Request) -> bytes:
        lifetime = request.requestHeaders.getRawHeaders(_LIFETIME, [b""])[0]
        forwarded = request.requestHeaders.hasHeader(b"x-forwarded-for")
        if request.method != b"PUT" or forwarded or not lifetime.isdigit() or not 1 <= int(lifetime) <= 21600:
            request.setResponseCode(403 if forwarded else 400)
            return b""
        token = b"AQAEAtoken%d==" % len(self._tokens)
        self._tokens.add(token)
        self.secrets.add(token.decode("ascii"))
        request.setHeader(_LIFETIME, lifetime)
        return token
