"""psql and curl for an enclave's image, from this machine, and a PostgreSQL for them to reach.

The image has no libraries for them, so theirs come along, and they are started by the image's own loader.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from nitroproxy.demo.certificates import ThrowAwayAuthority

#: Where they are in the image, and how one of them is started there.
_PLACE: Final = "app/clients"
_LOADER: Final = ("/lib64/ld-linux-x86-64.so.2", "--library-path", f"/{_PLACE}")
#: What the image has itself.
_IN_IMAGE: Final = re.compile(r"(ld-linux|libc|libm|libdl|libpthread|libresolv|libssl|libcrypto|libz|libgcc_s)[.-]")
_POSTGRESQL: Final = Path("/usr/lib/postgresql")
DATABASE: Final = "db.test"


def _programs() -> Mapping[str, Path]:
    return {"curl": Path("/usr/bin/curl"), "psql": next(iter(sorted(_POSTGRESQL.glob("*/bin/psql"))), Path("psql"))}


def client_files() -> Mapping[str, bytes]:
    """The programs and their libraries, by path in the image."""
    files: dict[str, bytes] = {}
    for name, program in _programs().items():
        files[f"{_PLACE}/{name}"] = program.read_bytes()
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"=> (/\S+)", listed):
            if not _IN_IMAGE.match(Path(library).name):
                files[f"{_PLACE}/{Path(library).name}"] = Path(library).read_bytes()
    return files


def command_of(name: str, *arguments: str) -> Sequence[str]:
    """The command that starts a client in the image."""
    return [*_LOADER, f"/{_PLACE}/{name}", *arguments]


class Database:
    """A PostgreSQL with TLS on this machine's loopback, which trusts the user "app".

    :param directory: for its files; others may pass through it.
    :ivar ca_pem: the authority of its certificate, which is for `DATABASE`.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port
        authority = ThrowAwayAuthority()
        self.ca_pem = authority.pem
        self._identity = authority.issue([x509.DNSName(DATABASE)])

    def make(self) -> None:
        """Make its files."""
        self._directory.mkdir()
        private, mark, certificate = self._identity.pem.partition(b"-----BEGIN CERT")
        for name, data in (("server.key", private), ("server.pem", mark + certificate)):
            path = self._directory / name
            path.touch(0o600)
            path.write_bytes(data)
            shutil.chown(path, "postgres", "postgres")
        shutil.chown(self._directory, "postgres", "postgres")
        self._run("initdb", "-D", str(self._directory / "data"), "-A", "trust", "-U", "app", "--no-sync")

    @property
    def command(self) -> Sequence[str]:
        """What runs it."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": str(self._directory / "server.pem"),
            "ssl_key_file": str(self._directory / "server.key"),
            "fsync": "off",
        }
        words = ["-D", str(self._directory / "data")]
        return self._as_postgres("postgres", *words, *(f"--{name}={value}" for name, value in settings.items()))

    def _run(self, *command: str) -> None:
        subprocess.run(self._as_postgres(*command), check=True, capture_output=True, timeout=120)

    @staticmethod
    def _as_postgres(program: str, *arguments: str) -> Sequence[str]:
        binaries = sorted(_POSTGRESQL.glob("*/bin"))[-1]
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*user, str(binaries / program), *arguments]
