"""The clients, each with its own words for a connection and for one that is denied: a table that is a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.transparent.outside import ECHO, LITERAL
from tests.transparent.stack import Stack

_HERE: Final = Path(__file__).parent
_CLIENTS: Final = _HERE / "clients"


@dataclass(frozen=True)
class Row:
    """One client, once.

    :ivar words: the command; ``{name}`` in it is replaced by what `Table` knows.
    :ivar says: a part of its output.
    :ivar status: its exit status; None: any but 0.
    """

    name: str
    words: Sequence[str]
    says: str
    status: int | None = 0
    environ: Mapping[str, str] = field(default_factory=dict)


_PSQL: Final = "host={0} user=app dbname=postgres sslmode=verify-full connect_timeout=10"
_SSL: Final = "select 'tls ' || version from pg_stat_ssl where pid = pg_backend_pid()"
_MARIADB: Final = ("mariadb", "--no-defaults", "--ssl-ca={ca}", "--ssl-verify-server-cert", "--user=root")
_SSH: Final = "ssh -i {directory}/sshd/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
_PYTHON: Final = "import urllib.request as r; print(r.urlopen('https://{0}/get', timeout=10).status)"
_SMTP: Final = """
import smtplib, ssl
with smtplib.SMTP("mail.test", 25, timeout=10) as mail:
    mail.starttls(context=ssl.create_default_context())
    print("sent", mail.sendmail("a@mail.test", ["b@mail.test"], "Subject: x\\r\\n\\r\\nx"))
"""

ROWS: Final = (
    Row("curl", ("curl", "-sS", "https://upstream.test/get"), '"https://upstream.test/get"'),
    Row("curl, IPv4 only", ("curl", "-sS4", "https://upstream.test/get"), '"origin"'),
    Row("curl, IPv6 only", ("curl", "-sS6", "https://upstream.test/get"), '"origin"'),
    Row("curl, another port", ("curl", "-sS", "https://web.test:8443/project.git/HEAD"), "ref: refs/heads/"),
    Row("curl, an address", ("curl", "-sS", f"https://{LITERAL}/get"), '"origin"'),
    Row("git over https", ("git", "clone", "-q", "https://web.test:8443/project.git", "{out}/https"), ""),
    Row(
        "git over ssh",
        ("git", "clone", "-q", "ssh://root@git.test/{directory}/nginx/www/project.git", "{out}/ssh"),
        "",
        environ={"GIT_SSH_COMMAND": _SSH},
    ),
    Row("psql, verify-full", ("psql", _PSQL.format("db.test"), "-Atc", _SSL), "tls TLSv1.3"),
    Row("redis-cli --tls", ("redis-cli", "-h", "cache.test", "--tls", "--cacert", "{ca}", "ping"), "PONG"),
    Row("mariadb", (*_MARIADB, "--host=maria.test", "-e", "show status like 'Ssl_version'"), "TLSv1.3"),
    Row("smtplib, STARTTLS", ("{python}", "-c", _SMTP), "sent {{}}"),
    Row(
        "openssl, STARTTLS",
        (
            *("openssl", "s_client", "-starttls", "smtp", "-connect", "mail.test:25", "-CAfile", "{ca}"),
            *("-verify_return_error", "-verify_hostname", "mail.test"),
        ),
        "Verification: OK",
    ),
    Row("Go, its own resolver", ("{go}", "https://upstream.test/get"), "200 OK"),
    Row("Node", ("node", "{clients}/get.mjs", "https://upstream.test/get"), "200"),
    Row("Java", ("java", "{trust}", "{clients}/Get.java", "https://upstream.test/get"), "200"),
    Row("Python, urllib", ("{python}", "-c", _PYTHON.format("upstream.test")), "200"),
    Row("Python, IPv4 by AI_ADDRCONFIG", ("{python}", "{clients}/addrconfig.py", "upstream.test"), "198.19."),
    Row("musl, static", ("{musl}", "upstream.test", str(ECHO)), "hello"),
    # Denied by the policy: the name does not exist.
    Row("curl, denied", ("curl", "-sS", "https://denied.test/"), "Could not resolve host", 6),
    Row("psql, denied", ("psql", _PSQL.format("denied.test"), "-c", "select 1"), "could not translate host name", 2),
    Row("redis-cli, denied", ("redis-cli", "-h", "denied.test", "--tls", "ping"), "Name or service not known", 1),
    Row("mariadb, denied", (*_MARIADB, "--host=denied.test", "-e", "select 1"), "Unknown server host", 1),
    Row("git, denied", ("git", "clone", "-q", "https://denied.test/x", "{out}/no"), "Could not resolve host", 128),
    Row("ssh, denied", ("ssh", "-o", "BatchMode=yes", "denied.test"), "Could not resolve hostname", 255),
    Row("Go, denied", ("{go}", "https://denied.test/"), "no such host", 1),
    Row("Node, denied", ("node", "{clients}/get.mjs", "https://denied.test/"), "ENOTFOUND", 1),
    Row("Java, denied", ("java", "{trust}", "{clients}/Get.java", "https://denied.test/"), "ConnectException", 1),
    Row("Python, denied", ("{python}", "-c", _PYTHON.format("denied.test")), "Name or service not known", 1),
    Row("musl, denied", ("{musl}", "denied.test", "443"), "Name does not resolve", 1),
    # Refused by the relay's address guard, or by no rule: the connection is reset, which a client may see while it
    # still connects.
    Row("curl, metadata service", ("curl", "-sS", "http://169.254.169.254/"), "curl: (", None),
    Row("curl, private address", ("curl", "-sS", "https://10.0.0.1/"), "curl: (", None),
    Row("curl, no rule", ("curl", "-sS", "https://203.0.113.1/"), "curl: (", None),
    Row("curl, odd spelling", ("curl", "-sS", "http://0xa9fea9fe/"), "curl: (", None),
    Row("curl, unknown address of ours", ("curl", "-sS", "https://198.19.200.200/"), "curl: (", None),
    Row("UDP", ("{python}", "{clients}/udp.py"), "refused"),
)

#: What the log says of those that are denied: the name or address, and why.
LOGGED: Final = (
    ("name_refused", "denied.test", "'denied.test:*' of egress.deny"),
    ("access", "169.254.169.254", "address_denied"),
    ("access", "10.0.0.1", "address_denied"),
    ("access", "203.0.113.1", "destination_not_allowed"),
    ("access", "198.19.200.200", "unknown_name"),
)


class Table:
    """Runs rows.

    :param stack: with its servers.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        out = stack.directory / "out"
        out.mkdir()
        self._values = {
            "ca": str(stack.directory / "ca.pem"),
            "directory": str(stack.directory),
            "out": str(out),
            "clients": str(_CLIENTS),
            "python": shutil.which("python3") or "python3",
        }
        self._make: Mapping[str, Callable[[], str]] = {"go": self._go, "musl": self._musl, "trust": self._trust}

    def run(self, row: Row) -> str:
        """Try it; what was wrong, or nothing."""
        words = [self._filled(word) for word in row.words]
        if shutil.which(words[0]) is None:
            return f"{words[0]} is not installed"
        environ = {name: self._filled(value) for name, value in row.environ.items()}
        try:
            done = self._stack.run(words, environ=environ)
        except subprocess.TimeoutExpired:
            return "it does not end"
        output = done.stdout + done.stderr
        right = done.returncode == row.status if row.status is not None else done.returncode != 0
        if right and self._filled(row.says) in output:
            return ""
        return f"status {done.returncode}, expected {row.status} and {row.says!r}: {output[-600:]}"

    def _filled(self, word: str) -> str:
        for name, make in self._make.items():
            if f"{{{name}}}" in word and name not in self._values:
                self._values[name] = make()
        return word.format(**self._values) if "{" in word else word

    def _build(self, words: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env={**os.environ, **(environ or {})}, cwd=_CLIENTS
        )
        if done.returncode:
            raise RuntimeError(f"{words[0]}: {done.stdout}{done.stderr}")

    def _go(self) -> str:
        """A static program, with Go's resolver and not libc's."""
        path = f"{self._values['out']}/get-go"
        self._build(["go", "build", "-o", path, "get.go"], {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"})
        return path

    def _musl(self) -> str:
        path = f"{self._values['out']}/connect-musl"
        self._build(["musl-gcc", "-static", "-O1", "-o", path, "connect.c"])
        return path

    def _trust(self) -> str:
        """Java's own file of authorities."""
        store = f"{self._values['out']}/trust.p12"
        words = ["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", self._values["ca"], "-keystore", store]
        self._build([*words, "-storepass", "changeit", "-storetype", "PKCS12"])
        argument = f"{self._values['out']}/java-arguments"
        Path(argument).write_text(f"-Djavax.net.ssl.trustStore={store}\n-Djavax.net.ssl.trustStorePassword=changeit\n")
        return f"@{argument}"
