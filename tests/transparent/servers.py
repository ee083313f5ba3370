"""Real servers with TLS, in the host's namespace: PostgreSQL, Redis, MariaDB, exim, sshd with git, nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.transparent.stack import Stack

#: The Debian packages of the servers and of their clients, and a file of each.
PACKAGES: Final = {
    "postgresql": "/usr/lib/postgresql",
    "postgresql-client": "/usr/bin/psql",
    "redis-server": "/usr/bin/redis-server",
    "redis-tools": "/usr/bin/redis-cli",
    "mariadb-server": "/usr/sbin/mariadbd",
    "mariadb-client": "/usr/bin/mariadb",
    "exim4-daemon-light": "/usr/sbin/exim4",
    "openssh-server": "/usr/sbin/sshd",
    "openssh-client": "/usr/bin/ssh",
    "git": "/usr/bin/git",
    "nginx-light": "/usr/sbin/nginx",
    "curl": "/usr/bin/curl",
    "openssl": "/usr/bin/openssl",
    "musl-tools": "/usr/bin/musl-gcc",
    "iptables": "/usr/sbin/iptables",
}
_PATIENCE: Final = 40.0
_EXIM: Final = """\
daemon_smtp_ports = 25
local_interfaces = 127.0.0.1
spool_directory = {directory}
log_file_path = {directory}/%slog
pid_file_path = {directory}/pid
primary_hostname = mail.test
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
acl_smtp_rcpt = anyone
keep_environment =
begin acl
anyone:
  accept
begin routers
nowhere:
  driver = redirect
  data = :blackhole:
"""
_SSHD: Final = """\
Port 22
ListenAddress 127.0.0.1
HostKey {directory}/host
PidFile {directory}/pid
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
"""
_NGINX: Final = """\
daemon off;
pid {directory}/pid;
error_log {directory}/error;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:8443 ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {directory}/www;
    }}
}}
"""


class Servers:
    """Starts them, each with files in a directory of its own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def start_all(self) -> None:
        """Start all, at once; they are ended with the stack."""
        waiting = [start() for start in (self.postgresql, self.redis, self.mariadb, self.exim, self.sshd, self.nginx)]
        until = time.monotonic() + _PATIENCE
        for name, port in waiting:
            while not self._listens(port):
                if time.monotonic() > until:
                    log = (self._stack.directory / f"{name}.log").read_text()
                    raise RuntimeError(f"{name} does not listen on {port}:\n{log[-2000:]}")
                time.sleep(0.1)

    def _listens(self, port: int) -> bool:
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        done = subprocess.run(self._stack.outside(["python3", "-c", code]), capture_output=True, check=False)
        return done.returncode == 0

    def _prepare(self, name: str, user: str | None = None) -> tuple[Path, Path, Path]:
        """A directory, and in it a certificate and its key, for *user*."""
        directory = self._stack.directory / name
        directory.mkdir()
        certificate, key = directory / "server.pem", directory / "server.key"
        for path in (certificate, key):
            shutil.copy(self._stack.directory / path.name, path)
            path.chmod(0o600)
        if user is not None:
            for path in (directory, certificate, key):
                shutil.chown(path, user, user)
        return directory, certificate, key

    def _once(self, words: Sequence[str]) -> None:
        """Run to the end what makes a server's files."""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words[0]}: {done.stdout[-1000:]}{done.stderr[-2000:]}")

    def _as(self, user: str, words: Sequence[str]) -> list[str]:
        return ["setpriv", "--pdeathsig", "TERM", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]

    def postgresql(self) -> tuple[str, int]:
        """PostgreSQL, which trusts the user "app"."""
        directory, certificate, key = self._prepare("postgresql", "postgres")
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        data = str(directory / "data")
        initdb = [str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "app", "--no-sync"]
        self._once(self._as("postgres", initdb))
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
            "fsync": "off",
        }
        words = [str(binaries / "postgres"), "-D", data]
        words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._stack.spawn("postgresql", self._stack.outside(self._as("postgres", words)))
        return "postgresql", 5432

    def redis(self) -> tuple[str, int]:
        """Redis, with TLS only."""
        _, certificate, key = self._prepare("redis")
        words = ["redis-server", "--port", "0", "--tls-port", "6379", "--bind", "127.0.0.1", "--save", ""]
        words += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
        words += ["--tls-ca-cert-file", str(self._stack.directory / "ca.pem")]
        self._stack.spawn("redis", self._stack.outside(words))
        return "redis", 6379

    def mariadb(self) -> tuple[str, int]:
        """MariaDB, without users."""
        directory, certificate, key = self._prepare("mariadb", "mysql")
        data = f"--datadir={directory}/data"
        self._once(["mariadb-install-db", "--no-defaults", data, "--user=mysql", "--skip-test-db"])
        words = ["mariadbd", "--no-defaults", data, "--user=mysql", "--skip-grant-tables", "--bind-address=127.0.0.1"]
        words += [f"--socket={directory}/socket", f"--ssl-cert={certificate}", f"--ssl-key={key}", "--port=3306"]
        words += [f"--pid-file={directory}/pid", "--innodb-flush-method=fsync"]
        self._stack.spawn("mariadb", self._stack.outside(words))
        return "mariadb", 3306

    def exim(self) -> tuple[str, int]:
        """exim, which takes mail for everyone and drops it."""
        directory, certificate, key = self._prepare("exim", "Debian-exim")
        text = _EXIM.format(directory=directory, certificate=certificate, key=key)
        # exim believes only files that nobody else could write.
        (directory / "configuration").write_text(text)
        words = ["exim4", "-bdf", "-C", str(directory / "configuration")]
        self._stack.spawn("exim", self._stack.outside(words))
        return "exim", 25

    def sshd(self) -> tuple[str, int]:
        """sshd, and a repository."""
        directory, _, _ = self._prepare("sshd")
        for name in ("host", "user"):
            self._once(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)])
        (directory / "configuration").write_text(_SSHD.format(directory=directory))
        os.makedirs("/run/sshd", exist_ok=True)
        words = ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "configuration")]
        self._stack.spawn("sshd", self._stack.outside(words))
        return "sshd", 22

    def nginx(self) -> tuple[str, int]:
        """nginx, with a repository to clone."""
        directory, certificate, key = self._prepare("nginx")
        text = _NGINX.format(directory=directory, certificate=certificate, key=key)
        (directory / "configuration").write_text(text)

        def git(*words: str) -> None:
            self._once(["git", *words])

        work, bare = str(directory / "work"), str(directory / "www" / "project.git")
        git("init", "-q", work)
        author = ["-c", "user.name=x", "-c", "user.email=x@web.test"]
        git("-C", work, *author, "commit", "-q", "--allow-empty", "-m", "first")
        git("clone", "-q", "--bare", work, bare)
        git("-C", bare, "update-server-info")
        for path in (directory, directory / "www"):
            path.chmod(0o755)
        words = ["nginx", "-c", str(directory / "configuration"), "-p", str(directory), "-g", "user root;"]
        self._stack.spawn("nginx", self._stack.outside(words))
        return "nginx", 8443


def missing_packages() -> list[str]:
    """The packages that are not installed."""
    return [package for package, path in PACKAGES.items() if not Path(path).exists()]
