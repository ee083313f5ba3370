"""A WebSocket echo for the clients' tests, in plain text and behind TLS 1.3, on this machine only.

It runs beside the local upstream (`nitroproxy.demo.upstream`), whose CA keeps its key to itself. So the echo has a CA
of its own, and adds it to the ``ca.pem`` that the upstream has left in DIRECTORY: a client that trusts that file trusts
both. When it listens it writes ``echo.json`` there: the TCP ports of `ws`, of `wss`, and of `wrong_name`, whose
certificate is for another name and must be refused.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography import x509
from websockets.asyncio.server import Server, ServerConnection, serve

from nitroproxy.demo.certificates import ServerIdentity, ThrowAwayAuthority


async def echo(connection: ServerConnection) -> None:
    """Send each message back until the client closes."""
    async for message in connection:
        await connection.send(message)


def server_context(identity: ServerIdentity) -> ssl.SSLContext:
    """TLS 1.3 with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with NamedTemporaryFile() as file:
        file.write(identity.pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def listen(context: ssl.SSLContext | None) -> Server:
    """Listen on a free port of loopback."""
    return await serve(echo, "127.0.0.1", 0, ssl=context)


async def main(directory: Path) -> None:
    """Serve until the process is ended."""
    authority = ThrowAwayAuthority()
    with (directory / "ca.pem").open("ab") as file:
        file.write(authority.pem)
    servers = {
        "ws": await listen(None),
        "wss": await listen(server_context(authority.issue())),
        "wrong_name": await listen(server_context(authority.issue([x509.DNSName("wrong.example")]))),
    }
    ports = {name: next(iter(server.sockets)).getsockname()[1] for name, server in servers.items()}
    unfinished = directory / ".echo.json"
    unfinished.write_text(json.dumps(ports))
    unfinished.replace(directory / "echo.json")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
