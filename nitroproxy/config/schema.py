"""What can be configured: every key with its type, limits, default and description, and the JSON Schema made of them.

The structs are plain values; those of most sections are in `ends` and `traffic`. This module knows neither where a
value comes from (file, environment, command line: `load`) nor Twisted.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.kinds import AbsolutePath, VsockPort, address_url, role_name, rule, sha256
from nitroproxy.config.traffic import Egress, Ingress, Limits, Tls


class Logging(Struct, frozen=True, forbid_unknown_fields=True):
    """What the daemons log, on standard output."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"],
        Meta(description="The least severe level that is logged."),
    ] = "INFO"
    format: Annotated[
        Literal["text", "json"], Meta(description="text: a line for a person; json: an object a line.")
    ] = "text"
    access: Annotated[bool, Meta(description="Whether each request is logged when it is over.")] = True
    port: Annotated[
        VsockPort,
        Meta(ge=0, description="The vsock port of the host to which the enclave sends its log; 0: it does not."),
    ] = 5002
    application: Annotated[
        bool,
        Meta(description="Whether what the application in the enclave prints goes to the host, which reads it."),
    ] = True
    make_traceparent: Annotated[
        bool, Meta(description="Whether requests without a W3C trace context (traceparent) are given one.")
    ] = False


class Attestation(Struct, frozen=True, forbid_unknown_fields=True):
    """How the enclave proves what it is."""

    device: Annotated[
        AbsolutePath | None,
        Meta(
            description="The Nitro Security Module in the enclave, /dev/nsm. The enclave's daemon does not start if it "
            "does not answer, gives no entropy, or the clock is not the hypervisor's. null: nothing is attested."
        ),
    ] = None
    emulated: Annotated[
        bool,
        Meta(
            description="Whether the enclave is an emulated one, which has no clock of a Nitro hypervisor. Refused "
            "where there is one."
        ),
    ] = False


class Credentials(Struct, frozen=True, forbid_unknown_fields=True):
    """The instance role's credentials for the application in the enclave."""

    role: Annotated[
        str | None,
        Meta(
            description="The instance's role, whose credentials nitroproxy-credentials.service gets for the enclave; "
            "null: the enclave gets none.",
            extra=rule("the name of a role: up to 64 letters, digits and _+=,.@-", role_name),
        ),
    ] = None
    socket: Annotated[AbsolutePath, Meta(description="The UNIX socket at which the host daemon asks for them.")] = (
        "/run/nitroproxy-credentials/credentials.sock"
    )
    metadata_url: Annotated[
        str,
        Meta(
            pattern="^http://",
            description="The instance metadata service; http://[fd00:ec2::254] where there is no IPv4.",
            extra=rule("http:// and an IP address, perhaps with a port", address_url),
        ),
    ] = "http://169.254.169.254"
    token_sha256: Annotated[
        str | None,
        Meta(
            description="The SHA-256, in hex, of the token with which an application in the enclave asks for them. "
            "enclave-init makes a token at each start and sets this; null: no application gets any.",
            extra=rule("64 hexadecimal digits in lower case", sha256),
        ),
    ] = None


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of nitroproxy. The same file serves the daemon on the host and the one in the enclave."""

    transport: Transport = Transport()
    enclave: Enclave = Enclave()
    host_proxy: HostProxy = HostProxy()
    egress: Egress = Egress()
    ingress: Ingress = Ingress()
    tls: Tls = Tls()
    limits: Limits = Limits()
    logging: Logging = Logging()
    attestation: Attestation = Attestation()
    credentials: Credentials = Credentials()


def json_schema() -> str:
    """The JSON Schema (2020-12) of a configuration file, as the text that is published."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "nitroproxy configuration"}
    return json.dumps(head | msgspec.json.schema(Settings), indent=2) + "\n"
