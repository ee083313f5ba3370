"""A destination that logs connections in with NTLM (RFC 4559, MS-NTHT). The handshake is pyspnego's, the rule ours."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import spnego
from twisted.web.resource import Resource
from twisted.web.server import Request

#: User names and their passwords.
USERS = {"alice": "wonderland", "bob": "builder"}


class NTLMResource(Resource):
    """Answers with the name of the user that the request's *connection* belongs to, else offers NTLM.

    :ivar connections: how many connections have sent a request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0

    def render(self, request: Request) -> bytes:
        """Answer with the user's name, or with 401 and the next step of the handshake."""
        channel: Any = request.channel
        if not hasattr(channel, "user"):
            channel.user, channel.context = None, None
            self.connections += 1
        if channel.user is not None:
            return channel.user.encode("ascii")  # type: ignore[no-any-return]
        scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
        challenge = "NTLM"
        if scheme == "NTLM":
            channel.context = channel.context or spnego.server(protocol="ntlm")
            step = channel.context.step(base64.b64decode(token))
            if channel.context.complete:
                channel.user = channel.context.client_principal.partition("\\")[2]
                return channel.user.encode("ascii")  # type: ignore[no-any-return]
            challenge += " " + base64.b64encode(step).decode("ascii")
        request.setResponseCode(401)
        request.setHeader("WWW-Authenticate", challenge)
        return b"who are you?"


class NTLMLogin:
    """A client's side of the handshake."""

    def __init__(self, user: str) -> None:
        self._context = spnego.client(f"LAB\\{user}", USERS[user], protocol="ntlm")

    def authorization(self, challenge: str | None = None) -> str:
        """The Authorization field of the next request; *challenge* is the last response's WWW-Authenticate."""
        token = base64.b64decode(challenge.partition(" ")[2]) if challenge else None
        step = self._context.step(token)
        assert step is not None
        return "NTLM " + base64.b64encode(step).decode("ascii")


def user_file() -> Path:
    """The file from which pyspnego's server end reads users; NTLM_USER_FILE in the environment names it."""
    with tempfile.NamedTemporaryFile("w", prefix="ntlm", delete=False) as file:
        file.writelines(f"LAB:{user}:{password}\n" for user, password in USERS.items())
    return Path(file.name)
