"""SOCKS on the enclave's loopback, through both daemons: curl, and a client in Python."""

from __future__ import annotations

import shutil
import socket
import ssl
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest

from tests.chain import ChainCase
from tests.test_preface_socks5 import CHOSEN, GREETING, name, request


class SocksTests(ChainCase):
    """As applications in the enclave use it."""

    tapped = False

    async def curl(self, *options: str) -> tuple[str, str, int]:
        """Run curl; what it prints, its complaints and its status."""
        path = shutil.which("curl")
        if path is None:
            raise SkipTest("curl is not installed")
        always = ["-sS", "--max-time", "30", "--cacert", str(self.directory / "ca.pem")]
        out, err, status = await getProcessOutputAndValue(path, [*always, *options], {"PATH": "/usr/bin:/bin"})
        return out.decode(), err.decode(), status

    async def test_curl(self) -> None:
        """curl reaches the upstream by name, over its own TLS; the access log has the name."""
        events = self.events()
        port = self.upstream.getHost().port
        url = f"https://localhost:{port}/"
        proxy = f"127.0.0.1:{self.loopback}"
        self.assertEqual(await self.curl("--socks5-hostname", proxy, url), ("hello ", "", 0))
        self.assertEqual(await self.curl("--proxy", f"socks5h://{proxy}", url), ("hello ", "", 0))
        [first, *_] = [event for event in events if event.get("event") == "tunnel" and event["method"] == "SOCKS5"]
        self.assertEqual((first["hop"], first["host"], first["port"]), ("nitroproxy-enclave", "localhost", port))

    async def test_refused(self) -> None:
        """What the policy refuses curl reports in its words; a user name is not asked for, one that is offered beside
        none is not needed."""
        proxy = f"127.0.0.1:{self.loopback}"
        _, complaint, status = await self.curl("--socks5-hostname", proxy, "https://denied.example/")
        self.assertEqual(status, 97)
        self.assertIn("(2)", complaint)
        url = f"https://localhost:{self.upstream.getHost().port}/"
        told = await self.curl("--socks5-hostname", proxy, "--proxy-user", "someone:secret", url)
        self.assertEqual(told, ("hello ", "", 0))

    async def test_gateway(self) -> None:
        """The gateway on the host speaks HTTP alone."""
        url = f"https://localhost:{self.upstream.getHost().port}/"
        _, _, status = await self.curl("--socks5-hostname", f"127.0.0.1:{self.port}", url)
        self.assertEqual(status, 97)

    async def test_python(self) -> None:
        """A client of forty lines, which sends an address literal: the policy and the guard judge it as any."""
        await self.stop("enclave")
        self.start("enclave", egress__allow=["127.0.0.1:*"])
        await self.stop("host")
        self.start("host", egress__allow=["127.0.0.1:*"])
        port = self.upstream.getHost().port
        asked = request(1, bytes([127, 0, 0, 1]), port)
        answer = await deferToThread(self.fetch, asked)
        self.assertTrue(answer.endswith(b"hello "), answer)

    def fetch(self, asked: bytes) -> bytes:
        """GET / through SOCKS."""
        with socket.create_connection(("127.0.0.1", self.loopback), timeout=20) as client:
            client.sendall(GREETING)
            assert client.recv(2) == CHOSEN
            client.sendall(asked)
            assert client.recv(10)[1] == 0
            context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
            with context.wrap_socket(client, server_hostname="localhost") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := tls.recv(65536):
                    answer += data
                return answer

    async def test_half_close(self) -> None:
        """A half-close passes through to the destination: its answer still arrives."""
        upstream: Any = None

        def exchange() -> bytes:
            nonlocal upstream
            with (
                socket.create_server(("127.0.0.1", 0)) as server,
                socket.create_connection(("127.0.0.1", self.loopback), timeout=20) as client,
            ):
                client.sendall(GREETING + request(3, name(b"localhost"), server.getsockname()[1]) + b"question")
                server.settimeout(20)
                upstream, _ = server.accept()
                client.shutdown(socket.SHUT_WR)
                with upstream:
                    upstream.settimeout(20)
                    asked = b""
                    while data := upstream.recv(100):
                        asked += data
                    upstream.sendall(asked + b" answered")
                answer = b""
                while data := client.recv(100):
                    answer += data
                return answer

        self.assertTrue((await deferToThread(exchange)).endswith(b"question answered"))
