"""The file in which the local upstream says where it listens, and its reading and writing.

It knows neither the upstream's servers nor the demonstration's cases.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

#: The file's name in the upstream's directory.
UPSTREAM_FILE: Final = "upstream.json"

#: The resource of the good listener with the number of application bytes that each of the others has received.
BYTES_RECEIVED_PATH: Final = "/demo/bytes-received"

#: What is wrong with the certificate of each listener that must be refused, by its name in the file.
BAD_CERTIFICATES: Final = {
    "expired": "its certificate has expired",
    "self_signed": "its certificate is self-signed",
    "wrong_name": "its certificate is for another name",
    "no_san": "its certificate has a common name and no subjectAltName",
    "email_only_san": "its certificate names an e-mail address only",
    "malformed_wildcard": "its certificate has a malformed wildcard",
}


class LocalUpstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the local upstream listens: TCP ports on 127.0.0.1, one a certificate; `https` is the good one.

    :ivar ca_file: the PEM file of the throw-away CA that a proxy has to trust to reach `https`.
    :ivar pid: the process that serves them all.
    """

    https: int
    expired: int
    self_signed: int
    wrong_name: int
    no_san: int
    email_only_san: int
    malformed_wildcard: int
    ca_file: str
    pid: int

    def url(self, name: str) -> str:
        """The base URL of the listener called *name* (``https`` or a key of `BAD_CERTIFICATES`), without a slash."""
        return f"https://localhost:{getattr(self, name)}"


def read_upstream_file(path: Path) -> LocalUpstream:
    """Read *path*.

    :raises ValueError: it is not such a file.
    :raises OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=LocalUpstream)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not the file of a local upstream: {error}") from error


def write_upstream_file(path: Path, upstream: LocalUpstream) -> None:
    """Write *path* so that a reader sees all of it or none.

    :raises OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(upstream)) + b"\n")
    unfinished.replace(path)
