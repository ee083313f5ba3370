"""The trust anchors: the built-in roots (of the certifi package), those of ``tls.ca_file`` and ``tls.extra_ca_file``.

An anchor may be an intermediate certificate: RFC 5280 section 6.1 takes any key, and `contexts` sets OpenSSL's flag.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from nitroproxy.tls.settings import TLSFileError, TLSSettings

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM: Final = re.compile(_BEGIN + rb"[^-]*-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Anchor:
    """A certificate that is trusted as it is.

    :ivar der: the whole of it.
    :ivar built_in: whether it comes with the program.
    """

    certificate: x509.Certificate
    der: bytes
    built_in: bool


def load_anchors(settings: TLSSettings) -> list[Anchor]:
    """The anchors that *settings* ask for; none when nothing is verified. A built-in one that a file repeats stays
    built in.

    :raises TLSFileError: naming every file that cannot be used.
    """
    if not settings.verify:
        return []
    wanted = [("ca_file", settings.ca_file or certifi.where(), settings.ca_file is None)]
    if settings.extra_ca_file is not None:
        wanted.append(("extra_ca_file", settings.extra_ca_file, False))
    found: dict[bytes, Anchor] = {}
    problems = []
    for key, path, built_in in wanted:
        try:
            for certificate in read_certificates(path):
                der = certificate.public_bytes(Encoding.DER)
                found.setdefault(der, Anchor(certificate, der, built_in))
        except ValueError as error:
            problems.append((key, str(error)))
    if problems:
        raise TLSFileError(problems)
    return list(found.values())


def read_certificates(path: str) -> list[x509.Certificate]:
    """The certificates in the PEM file at *path*, at least one. Text around them is skipped.

    :raises ValueError: naming the file, the number of the certificate and what is wrong.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    blocks = _PEM.findall(content)
    if not blocks:
        raise ValueError(f"{path}: holds no certificate in PEM")
    if len(blocks) != content.count(_BEGIN):
        raise ValueError(f"{path}: a certificate in it is cut off: BEGIN CERTIFICATE without END CERTIFICATE")
    return list(_parsed(path, blocks))


def _parsed(path: str, blocks: list[bytes]) -> Iterator[x509.Certificate]:
    with warnings.catch_warnings():
        # Five built-in roots have the serial number 0, of which the library warns each time.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for number, block in enumerate(blocks, 1):
            try:
                yield x509.load_pem_x509_certificate(block)
            except ValueError as error:
                raise ValueError(f"{path}: certificate {number} of {len(blocks)} cannot be read: {error}") from error
