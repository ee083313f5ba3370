"""TLS clients without the hybrid key exchange, which our OpenSSL has and Debian's lacks."""

from __future__ import annotations

from typing import Final

from benchmarks.processes import Crew

#: What the names of such rows contain.
CLASSIC: Final = "X25519 alone"
#: OpenSSL reads this configuration for each context that it makes.
_CONFIGURATION: Final = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
Groups = X25519:P-256
"""


def classic(crew: Crew) -> dict[str, str]:
    """The environment of such a client."""
    return {"OPENSSL_CONF": str(crew.write("classic.cnf", _CONFIGURATION))}
