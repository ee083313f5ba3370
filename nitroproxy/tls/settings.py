"""What TLS towards destinations is made from, as plain values, and the error of files that cannot be used.

Pure: it reads no file and knows no OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What a certificate must conform to: RFC 5280 as OpenSSL reads it, or the rules of the public web (CA/Browser Forum
#: Baseline Requirements) as well, checked by a second implementation.
Profile = Literal["webpki", "openssl"]


@dataclass(frozen=True)
class ClientCertificateFiles:
    """Where a client certificate is.

    :ivar certificate_file: PEM: the certificate, then those that lead to its authority.
    :ivar key_file: PEM: its private key, not encrypted.
    """

    certificate_file: str
    key_file: str


@dataclass(frozen=True)
class TLSSettings:
    """The section ``tls`` of the configuration, as far as handshakes depend on it.

    :ivar min_version: ``TLSv1.3`` or ``TLSv1.2``.
    :ivar verify: whether certificates are verified at all.
    :ivar ca_file: PEM file of trust anchors instead of the built-in ones; None for the built-in ones.
    :ivar extra_ca_file: PEM file of trust anchors in addition to those.
    :ivar client_certificates: by ``host:port`` pattern; the most specific pattern counts.
    :ivar profile: what every chain must conform to; None: ``webpki`` for chains to a built-in anchor, ``openssl`` for
        chains to an anchor of `ca_file` or `extra_ca_file`.
    """

    min_version: str = "TLSv1.3"
    verify: bool = True
    ca_file: str | None = None
    extra_ca_file: str | None = None
    client_certificates: Mapping[str, ClientCertificateFiles] = field(default_factory=dict)
    profile: Profile | None = None


class TLSFileError(ValueError):
    """Files that the settings name cannot be used.

    :ivar problems: for each the key of the section ``tls`` and what is wrong, which names the file.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"tls.{key}: {text}" for key, text in self.problems))
