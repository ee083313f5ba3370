"""The PROXY protocol with those who speak it: nginx and haproxy as the application, haproxy as the load balancer."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from nitroproxy.preface.proxy_protocol import Header, Peers
from nitroproxy.sockets.listening import listens
from tests.ports import free_port
from tests.test_chain_ingress import IngressCase

reactor: Any = global_reactor

_NGINX = """daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{ return 200 "client $proxy_protocol_addr:$proxy_protocol_port at $proxy_protocol_server_port\\n"; }}
  }}
}}
"""
_HAPROXY = """global
  log stdout format raw local0
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend application
  bind 127.0.0.1:{port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "client %[src]:%[src_port] at %[dst_port]\\n"
"""
_BALANCER = """defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen balancer
  bind 127.0.0.1:{port}
  server host 127.0.0.1:{host} {how}
"""


class ServerCase(IngressCase):
    """Starts programs beside the daemons."""

    timeout = 60

    def program(self, name: str, configuration: str, options: list[str], **values: object) -> None:
        """Run *name* until the test ends.

        :param options: those before the configuration's path.
        """
        path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if path is None:
            raise SkipTest(f"{name} is not installed")
        file = Path(self.directory) / f"{name}-{free_port()}.conf"
        file.write_text(configuration.format(directory=self.directory, **values))
        self.directory.chmod(0o755)  # nginx's workers are another user.
        process = subprocess.Popen([path, *options, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

    async def ask(self, port: int, before: bytes = b"") -> tuple[str, int]:
        """What the application says of who its client is, and the port that this client has."""
        return await deferToThread(_ask, port, before)

    async def listens(self, port: int) -> bool:
        """Whether somebody listens there: a connection to find out would go through to the application."""
        return listens(port)

    async def nginx(self) -> None:
        """nginx is the application."""
        self.program("nginx", _NGINX, ["-e", f"{self.directory}/nginx.log", "-c"], port=self.inside)
        await self.until(True, lambda: self.listens(self.inside))

    async def haproxy(self) -> None:
        """haproxy is the application."""
        self.program("haproxy", _HAPROXY, ["-f"], port=self.inside)
        await self.until(True, lambda: self.listens(self.inside))

    async def balancer(self, how: str) -> int:
        """haproxy is the load balancer; its port."""
        port = free_port()
        self.program("haproxy", _BALANCER, ["-f"], port=port, host=self.outside, how=how)
        await self.until(True, lambda: self.listens(port))
        return port


def _ask(port: int, before: bytes) -> tuple[str, int]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        own = client.getsockname()[1]
        client.sendall(before + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip(), own


class SendTests(ServerCase):
    """`"proxy_protocol": "send"`."""

    proxy_protocol = "send"

    async def test_nginx(self) -> None:
        """nginx learns the client's address and port, and where it connected."""
        await self.nginx()
        answer, own = await self.ask(self.outside)
        self.assertEqual(answer, f"client 127.0.0.1:{own} at {self.outside}")

    async def test_haproxy(self) -> None:
        """So does haproxy."""
        await self.haproxy()
        answer, own = await self.ask(self.outside)
        self.assertEqual(answer, f"client 127.0.0.1:{own} at {self.outside}")


class BothTests(ServerCase):
    """`"proxy_protocol": "both"`: what a load balancer says reaches the application."""

    proxy_protocol = "both"

    async def test_balancer(self) -> None:
        """haproxy as the balancer, in both versions, and nginx behind it: it learns the balancer's client."""
        await self.nginx()
        for how in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"):
            port = await self.balancer(how)
            answer, own = await self.ask(port)
            self.assertEqual(answer, f"client 127.0.0.1:{own} at {port}", how)

    async def test_ipv6(self) -> None:
        """An IPv6 client's address reaches haproxy."""
        await self.haproxy()
        header = Header(Peers(("2001:db8::9", 999), ("2001:db8::2", 443)))
        answer, _ = await self.ask(self.outside, header.to_bytes())
        self.assertEqual(answer, "client 2001:db8::9:999 at 443")


class AcceptTests(ServerCase):
    """`"proxy_protocol": "accept"`: the header ends at the host."""

    proxy_protocol = "accept"

    async def test_stripped(self) -> None:
        """The application gets the client's bytes and no header."""
        port = await self.balancer("send-proxy-v2")
        self.listen()
        accepted = self.application.next()
        asking = deferToThread(_ask, port, b"")
        application = await accepted
        await application.until(4)
        self.assertTrue(application.received.startswith(b"GET / HTTP/1.1\r\n"))
        application.wire.write(b"HTTP/1.1 200 OK\r\n\r\nyes")
        application.wire.loseConnection()
        self.assertEqual((await asking)[0], "yes")
