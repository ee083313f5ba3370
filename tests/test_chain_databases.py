"""Clients that know no HTTP proxy, with their own servers from Debian: psql, mariadb, redis-cli and ssh. What
docs/clients.md says of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from nitroproxy.demo.certificates import ThrowAwayAuthority
from nitroproxy.sockets.listening import listens
from tests.chain import ChainCase
from tests.ports import free_port

_PATH = "/usr/lib/postgresql/15/bin:/usr/lib/postgresql/16/bin:/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Who runs servers that do not run as root: nobody.
_NOBODY = 65534


def program(name: str) -> str:
    """The program's path; skips the test where it is not installed."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise SkipTest(f"{name} is not installed")
    return path


class ServersCase(ChainCase):
    """Both daemons, with a forward to a server.

    :ivar server: the server's port; *forward* the one that leads to it.
    """

    tapped = False
    tls = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits what it returns
        self.server, self.forward = free_port(), free_port()
        await super().setUp()
        self.directory.chmod(0o755)
        # The CA that the daemons trust, and the server's certificate: for localhost.
        self.authority = ThrowAwayAuthority()
        (self.directory / "server-ca.pem").write_bytes(self.authority.pem)
        pem = self.directory / "server.pem"
        pem.write_bytes(self.authority.issue().pem)
        self.reload("enclave")

    def configure(self, role: str, **more: object) -> str:
        forward = {"listen": f"127.0.0.1:{self.forward}", "to": f"localhost:{self.server}", "tls": self.tls}
        extra = self.directory / "server-ca.pem"
        trusted = {"tls__extra_ca_file": str(extra)} if extra.exists() else {}
        return super().configure(role, **{"enclave__forwards": [forward], **trusted, **more})

    def serve(self, *command: str, user: int | None = None) -> None:
        """Run a server until the test ends."""
        quiet: Any = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, user=user, cwd=self.directory)
        self.addCleanup(process.wait)
        self.addCleanup(process.send_signal, signal.SIGQUIT if user is not None else signal.SIGKILL)

    async def up(self) -> bool:
        """The server listens."""
        return listens(self.server)

    async def run_client(self, *command: str, **environ: str) -> tuple[int, str]:
        """Run a client; its status, and what it prints and complains of."""

        def run() -> tuple[int, str]:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=40,
                env={"PATH": _PATH, "HOME": str(self.directory), **environ},
            )
            return done.returncode, done.stdout

        return await deferToThread(run)


class PostgreSQLTests(ServersCase):
    """TLS that begins inside the protocol: bytes pass as they are."""

    async def test_verify_full(self) -> None:
        """psql connects to the forward's address and verifies the server by its name."""
        initdb, postgres, psql = program("initdb"), program("postgres"), program("psql")
        user = _NOBODY if os.getuid() == 0 else None
        data = self.directory / "data"
        data.mkdir()
        key = self.directory / "server.pem"
        if user is not None:
            for path in (data, key):
                os.chown(path, user, -1)
        key.chmod(0o600)
        made = await deferToThread(
            subprocess.run,
            [initdb, "-D", str(data), "-U", "someone", "-A", "trust", "--no-sync"],
            check=False,
            capture_output=True,
            text=True,
            user=user,
            cwd="/",
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        options = ["-p", str(self.server), "-h", "127.0.0.1", "-k", "", "-F"]
        options += ["-c", "ssl=on", "-c", f"ssl_cert_file={key}", "-c", f"ssl_key_file={key}"]
        self.serve(postgres, "-D", str(data), *options, user=user)
        await self.until(True, self.up)
        ca = self.directory / "server-ca.pem"
        wanted = f"host=localhost hostaddr=127.0.0.1 port={self.forward} user=someone dbname=postgres sslrootcert={ca}"
        query = "select ssl::text || version from pg_stat_ssl where pid = pg_backend_pid()"

        async def ready() -> tuple[int, str]:
            return await self.run_client(psql, f"{wanted} sslmode=verify-full", "-Atc", query)

        await self.until((0, "trueTLSv1.3\n"), ready)
        status, told = await self.run_client(
            psql, wanted.replace("host=localhost", "host=other.example") + " sslmode=verify-full", "-Atc", query
        )
        self.assertEqual(status, 2)
        self.assertIn("does not match host name", told)


class MariaDBTests(ServersCase):
    """The server speaks first, then TLS begins inside the protocol."""

    async def test_verify(self) -> None:
        """mariadb connects by the server's name, which leads to the forward, and verifies it."""
        install, server, client = program("mariadb-install-db"), program("mariadbd"), program("mariadb")
        user = _NOBODY if os.getuid() == 0 else None
        data, pem = self.directory / "data", str(self.directory / "server.pem")
        data.mkdir()
        if user is not None:
            os.chown(data, user, -1)
            os.chown(pem, user, -1)
        made = await deferToThread(
            subprocess.run,
            [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"],
            check=False,
            capture_output=True,
            text=True,
            user=user,
            cwd="/",
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        options = [f"--datadir={data}", f"--port={self.server}", "--bind-address=127.0.0.1", f"--socket={data}/socket"]
        options += [f"--ssl-cert={pem}", f"--ssl-key={pem}", "--require-secure-transport=ON"]
        self.serve(server, "--no-defaults", *options, user=user)
        await self.until(True, self.up)
        ca = str(self.directory / "server-ca.pem")
        command = [client, "--no-defaults", "--protocol=tcp", f"--port={self.forward}", "--user=root", f"--ssl-ca={ca}"]
        command += ["--ssl-verify-server-cert", "-N", "-e", "show status like 'Ssl_version'"]

        async def ready() -> tuple[int, str]:
            return await self.run_client(*command, "--host=localhost")

        await self.until((0, "Ssl_version\tTLSv1.3\n"), ready)
        status, _ = await self.run_client(*command, "--host=127.0.0.2")
        self.assertEqual(status, 1)


class RedisTests(ServersCase):
    """TLS from the first byte, which the enclave starts for a client without."""

    tls = True

    async def test_forward(self) -> None:
        """redis-cli speaks plainly to the forward; the server takes TLS alone."""
        server, client = program("redis-server"), program("redis-cli")
        pem, ca = str(self.directory / "server.pem"), str(self.directory / "server-ca.pem")
        options = ["--port", "0", "--tls-port", str(self.server), "--bind", "127.0.0.1", "--save", ""]
        options += ["--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no"]
        self.serve(server, *options)
        await self.until(True, self.up)
        told = await self.run_client(client, "-p", str(self.forward), "SET", "key", "value")
        self.assertEqual(told, (0, "OK\n"))
        self.assertEqual(await self.run_client(client, "-p", str(self.forward), "GET", "key"), (0, "value\n"))


class SSHTests(ServersCase):
    """The server speaks first."""

    async def test_ways(self) -> None:
        """ssh through a forward, and through the proxy's port by CONNECT with socat; the host key is verified under the
        server's own name each time."""
        sshd, ssh, keygen, socat = program("sshd"), program("ssh"), program("ssh-keygen"), program("socat")
        if os.getuid() != 0:
            raise SkipTest("sshd runs as root")
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "user"):
            made = await self.run_client(keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name))
            self.assertEqual(made, (0, ""))
        (self.directory / "keys").write_bytes((self.directory / "user.pub").read_bytes())
        kind, key, *_ = (self.directory / "host.pub").read_text().split()
        (self.directory / "known").write_text(f"git.example {kind} {key}\n")
        (self.directory / "sshd.conf").write_text(
            f"ListenAddress 127.0.0.1:{self.server}\nHostKey {self.directory}/host\nStrictModes no\n"
            f"AuthorizedKeysFile {self.directory}/keys\nPermitRootLogin yes\nPidFile none\nUsePAM no\n"
        )
        self.serve(sshd, "-D", "-e", "-f", str(self.directory / "sshd.conf"))
        await self.until(True, self.up)
        options = [ssh, "-F", "none", "-i", str(self.directory / "user"), "-o", "HostKeyAlias=git.example"]
        options += ["-o", f"UserKnownHostsFile={self.directory}/known", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", "BatchMode=yes"]
        connect = f"{socat} - PROXY:127.0.0.1:%h:%p,proxyport={self.loopback}"
        for way in (
            ["-p", str(self.forward), "root@127.0.0.1"],
            ["-o", f"ProxyCommand={connect}", "-p", str(self.server), "root@localhost"],
        ):
            self.assertEqual(await self.run_client(*options, *way, "echo through"), (0, "through\n"), way)
        refused = await self.run_client(*options, "-o", f"ProxyCommand={connect}", "root@denied.example", "echo no")
        self.assertEqual(refused[0], 255)
        self.assertIn("CONNECT denied.example:22: Forbidden", refused[1])
