"""The relay's way out through squid and tinyproxy, as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest
from twisted.web.client import readBody

from nitroproxy.sockets.listening import listens
from tests.chain import ChainCase
from tests.ports import free_port

_SQUID = """http_port 127.0.0.1:{port}
pid_filename none
cache deny all
access_log none
cache_log {directory}/squid.log
cache_store_log none
coredump_dir {directory}
shutdown_lifetime 0 seconds
netdb_filename none
acl denied dstdomain denied.localhost
http_access deny denied
{access}
http_access deny all
"""
_BASIC = """auth_param basic program {helper} {directory}/passwords
acl known proxy_auth REQUIRED
http_access allow known"""
_TINYPROXY = """Port {port}
Listen 127.0.0.1
Timeout 30
LogFile "{directory}/tinyproxy.log"
MaxClients 10
Allow 127.0.0.1
"""


class UpstreamProxyTests(ChainCase):
    """Both daemons, and another proxy before the upstream."""

    tapped = False

    def program(self, name: str, configuration: str, options: list[str], **values: object) -> int:
        """Run *name* until the test ends; its port."""
        path = shutil.which(name, path="/usr/sbin:/usr/bin")
        if path is None:
            raise SkipTest(f"{name} is not installed")
        port = free_port()
        self.directory.chmod(0o777)  # squid's workers are another user.
        file = Path(self.directory) / f"{name}.conf"
        file.write_text(configuration.format(directory=self.directory, port=port, **values))
        process = subprocess.Popen([path, *options, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return port

    async def through(self, port: int, **more: object) -> None:
        """From now on the relay goes through the proxy at *port*."""

        async def up() -> bool:
            return listens(port)

        await self.until(True, up)
        proxy = {"url": f"http://127.0.0.1:{port}", **more}
        # No address is exempt: only a name leads to the loopback then.
        self.assertTrue(self.reload("host", egress__upstream_proxy=proxy, egress__allow_addresses=[]))

    async def ask(self, url: bytes | None = None) -> tuple[int, str]:
        """What a client of the gateway gets: the status, and the failure with its detail."""
        response: Any = await self.agent.request(b"GET", url or self.url("/"))
        body = await readBody(response)
        if response.code == 200:
            return 200, body.decode()
        problem = json.loads(body)
        return response.code, f"{problem['error']} {problem['hop']}: {problem['detail']}"

    async def test_squid(self) -> None:
        """Requests go through squid, which looks the name up: the guard has no say, and health says so."""
        port = self.program("squid", _SQUID, ["-N", "-f"], access="http_access allow localhost")
        await self.through(port)
        self.assertEqual(await self.ask(), (200, "hello "))
        _, checks = await self.health()
        self.assertEqual(checks["egress"][0]["status"], "pass")
        self.assertIn(f"through http://127.0.0.1:{port}, which looks names up", checks["egress"][0]["output"])

    async def test_refused(self) -> None:
        """squid's own refusal is named; a literal internal address does not get as far."""
        port = self.program("squid", _SQUID, ["-N", "-f"], access="http_access allow localhost")
        await self.through(port)
        for role in ("enclave", "host"):
            proxy = {"url": f"http://127.0.0.1:{port}"}
            self.reload(role, egress__allow=["*:*"], egress__upstream_proxy=proxy, egress__allow_addresses=[])
        gateway = b"http://127.0.0.1:%d" % self.port
        status, told = await self.ask(gateway + b"/https://denied.localhost/")
        self.assertEqual(status, 502)
        self.assertIn("upstream_proxy_refused nitroproxy-relay: ", told)
        self.assertIn("answered CONNECT with 403: it does not allow the destination", told)
        status, told = await self.ask(gateway + b"/https://169.254.169.254/")
        self.assertEqual(status, 403)
        self.assertIn("address_denied nitroproxy-relay", told)

    async def test_credentials(self) -> None:
        """squid wants credentials: without them a failure names 407 and health warns, with the file it works, and a
        reload reads the file again."""
        helper = "/usr/lib/squid/basic_ncsa_auth"
        if not Path(helper).exists():
            raise SkipTest("squid's basic_ncsa_auth is not installed")
        made = subprocess.run(
            ["openssl", "passwd", "-apr1", "p:w"], check=True, capture_output=True, text=True, timeout=20
        )
        passwords = self.directory / "passwords"
        passwords.write_text(f"someone:{made.stdout}")
        passwords.chmod(0o644)
        access = _BASIC.format(helper=helper, directory=self.directory)
        port = self.program("squid", _SQUID, ["-N", "-f"], access=access)
        await self.through(port)
        status, told = await self.ask()
        self.assertEqual(status, 502)
        self.assertIn("answered CONNECT with 407: it does not accept the credentials", told)
        _, checks = await self.health()
        self.assertEqual(checks["egress"][0]["status"], "warn")
        file = self.directory / "credentials"
        file.write_text("someone:p:w\n")
        file.chmod(0o600)
        await self.through(port, credentials_file=str(file))
        self.assertEqual(await self.ask(), (200, "hello "))
        file.chmod(0o644)
        proxy = {"url": f"http://127.0.0.1:{port}", "credentials_file": str(file)}
        events = self.events()
        self.assertFalse(self.reload("host", egress__upstream_proxy=proxy))
        [event] = [event for event in events if event["event"] == "reload_failed"]
        self.assertIn("egress.upstream_proxy: credentials_file: ", event["message"])

    async def test_tinyproxy(self) -> None:
        """tinyproxy, which answers as HTTP/1.0, will do; what no_proxy names is dialled as ever, with the guard."""
        port = self.program("tinyproxy", _TINYPROXY, ["-d", "-c"])
        await self.through(port)
        self.assertEqual(await self.ask(), (200, "hello "))
        await self.through(port, no_proxy=["localhost:*"])
        status, told = await self.ask()
        self.assertEqual(status, 403)
        self.assertIn("address_denied", told)

    async def test_away(self) -> None:
        """A proxy that is away is named, health warns, and a reload leads past it."""
        proxy = {"url": f"http://127.0.0.1:{free_port()}"}
        self.assertTrue(self.reload("host", egress__upstream_proxy=proxy))
        status, told = await self.ask()
        self.assertEqual(status, 503)
        self.assertIn(f"upstream_proxy_unavailable nitroproxy-relay: {proxy['url']}: ", told)
        _, checks = await self.health()
        self.assertEqual(checks["egress"][0]["status"], "warn")
        self.assertTrue(self.reload("host"))
        self.assertEqual(await self.ask(), (200, "hello "))
