"""The sections of the configuration about what passes, and how: egress, ingress, tls and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from nitroproxy.config.kinds import (
    RESPONSE_TIMEOUT,
    AbsolutePath,
    AddressAndPort,
    Interface,
    Networks,
    Patterns,
    Seconds,
    VsockPort,
    by_pattern,
    proxy_address,
    rule,
    seconds_by_pattern,
)


class UpstreamProxy(Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP proxy that is the host's only way out."""

    url: Annotated[
        str,
        Meta(
            description="Where it listens.",
            extra=rule("a URL such as http://proxy.example:3128", proxy_address),
        ),
    ]
    credentials_file: Annotated[
        AbsolutePath | None,
        Meta(
            description="A file with one line, user:password, out of reach of others (0600 or 0640), for Basic "
            "authentication; null: none."
        ),
    ] = None
    no_proxy: Annotated[
        Patterns, Meta(description="host:port patterns, as in egress.allow, of what the relay dials itself.")
    ] = ()


class Egress(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be reached. Enforced twice: in the enclave, and in the relay on the host."""

    port: Annotated[VsockPort, Meta(ge=1024, description="The vsock port of the egress relay on the host.")] = 5001
    allow: Annotated[
        Patterns,
        Meta(
            description="host:port patterns that may be reached. * is one label, or the whole host or port; "
            "**. is any number of labels; a CIDR matches address literals."
        ),
    ] = ("*:443",)
    deny: Annotated[
        Patterns, Meta(description="host:port patterns that may not be reached, whatever egress.allow says.")
    ] = ()
    allow_addresses: Annotated[
        Networks,
        Meta(
            description="Networks (CIDR) that may be dialled although they are internal: loopback, private, link-local "
            "and other special addresses are refused otherwise. Services that give AWS credentials always are."
        ),
    ] = ()
    upstream_proxy: Annotated[
        UpstreamProxy | None,
        Meta(
            description="An HTTP proxy through which the relay on the host reaches destinations, by CONNECT. It looks "
            "names up, so what a name leads to is not checked then. null: the relay dials itself."
        ),
    ] = None


class IngressForward(Struct, frozen=True, forbid_unknown_fields=True):
    """Connections from outside to one port of the application in the enclave, as they are: the application has its own
    TLS."""

    listen: Annotated[AddressAndPort, Meta(description="Where the host daemon listens: an IP address and a TCP port.")]
    vsock: Annotated[VsockPort, Meta(ge=1, description="The vsock port of the enclave that it leads to.")]
    to: Annotated[
        int, Meta(ge=1, le=65535, description="The port on 127.0.0.1 where the application in the enclave listens.")
    ]
    proxy_protocol: Annotated[
        Literal["send", "accept", "both"] | None,
        Meta(
            description="The PROXY protocol. send: the application is told who the client is (version 2); accept: each "
            "connection must begin with a header, as of a load balancer (version 1 or 2); both; null: neither."
        ),
    ] = None

    @property
    def sends_header(self) -> bool:
        """The application is told who the client is."""
        return self.proxy_protocol in ("send", "both")

    @property
    def accepts_header(self) -> bool:
        """A proxy before the host says who the client is."""
        return self.proxy_protocol in ("accept", "both")


class Ingress(Struct, frozen=True, forbid_unknown_fields=True):
    """Connections from outside to the application in the enclave."""

    forwards: Annotated[
        tuple[IngressForward, ...],
        Meta(
            max_length=64,
            description="Ports that lead to the application, byte by byte. The host daemon uses listen and vsock, the "
            "enclave daemon vsock and to.",
        ),
    ] = ()
    tcp_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="The TCP port of the host that leads to the enclave's attested listener, whose TLS ends in the "
            "enclave; 0: none.",
        ),
    ] = 0
    interface: Annotated[Interface, Meta(description="The address that the host daemon listens on for tcp_port.")] = (
        "0.0.0.0"  # noqa: S104  # it is for clients from outside
    )
    port: Annotated[
        VsockPort,
        Meta(
            ge=0,
            description="The vsock port of the enclave's attested listener, if attestation.device is set; 0: there is "
            "none.",
        ),
    ] = 5443
    application: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(
            description="The port on 127.0.0.1 where the application in the enclave serves HTTP, to which requests at "
            "the attested listener go; null: none.",
        ),
    ] = None
    client_ca_file: Annotated[
        AbsolutePath | None,
        Meta(
            description="A PEM file, in the enclave's image, of the authorities of client certificates: a client that "
            "has one may use the attested listener as a proxy. null: nobody may."
        ),
    ] = None


class ClientCertificate(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate by which the enclave authenticates itself to a destination."""

    certificate_file: Annotated[
        AbsolutePath, Meta(description="A PEM file: the certificate, then those that lead to its authority.")
    ]
    key_file: Annotated[
        AbsolutePath,
        Meta(description="A PEM file: the private key, without a passphrase, out of reach of others (0600 or 0640)."),
    ]


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS from the enclave to the destination."""

    min_version: Annotated[
        Literal["TLSv1.2", "TLSv1.3"], Meta(description="The oldest version of TLS that is spoken.")
    ] = "TLSv1.3"
    verify_certificates: Annotated[
        bool, Meta(description="Whether certificates are verified. false is refused unless DEBUG_MODE is true.")
    ] = True
    ca_file: Annotated[
        AbsolutePath | None,
        Meta(
            description="A PEM file of the authorities to trust instead of the built-in ones; null: the built-in ones."
        ),
    ] = None
    extra_ca_file: Annotated[
        AbsolutePath | None,
        Meta(description="A PEM file of authorities to trust in addition to those of ca_file or the built-in ones."),
    ] = None
    certificate_profile: Annotated[
        Literal["webpki", "openssl"] | None,
        Meta(
            description="What certificates must conform to. webpki: the rules of the public web, checked by two "
            "implementations; openssl: OpenSSL's usual verification; null: webpki for the built-in authorities, "
            "openssl for those of ca_file and extra_ca_file."
        ),
    ] = None
    client_certificates: Annotated[
        dict[str, ClientCertificate],
        Meta(
            description="Client certificates by host:port pattern, as in egress.allow; the most specific pattern "
            "counts.",
            extra=rule("an object of host:port patterns, each with certificate_file and key_file", by_pattern),
        ),
    ] = {}  # msgspec copies it
    allow_plaintext: Annotated[
        bool, Meta(description="Whether http:// destinations are allowed. The host reads and can change that traffic.")
    ] = False


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of each listener and connection."""

    connections: Annotated[
        int,
        Meta(
            ge=1,
            description="Connections that a listener serves at a time; one client address has three quarters of them "
            "at most. The enclave's two serve a quarter more together, the relay twice that. Above the limit only the "
            "proxy's own pages are served.",
        ),
    ] = 4000
    header_bytes: Annotated[int, Meta(ge=1024, le=1048576, description="The largest header section, in bytes.")] = 65536
    header_timeout: Annotated[Seconds, Meta(description="Seconds in which a request's head must be complete.")] = 10.0
    idle_timeout: Annotated[Seconds, Meta(description="Seconds that a connection may be without any progress.")] = 60.0
    tunnel_timeout: Annotated[
        Seconds,
        Meta(
            description="Seconds that a tunnel (CONNECT, WebSocket) or an event stream may be silent. A half-closed "
            "tunnel, or one whose reader takes nothing, has idle_timeout."
        ),
    ] = 3600.0
    min_body_rate: Annotated[
        int,
        Meta(
            ge=0,
            le=1048576,
            description="Bytes a second that a client must send of a request body on average since it began. Pauses "
            "of idle_timeout in all, and time in which the destination does not take it, are not counted; 0: any.",
        ),
    ] = 240
    connect_timeout: Annotated[
        Seconds, Meta(description="Seconds for a connection to the destination, its TLS handshake included.")
    ] = 10.0
    response_timeout: Annotated[
        Seconds | dict[str, Seconds],
        Meta(
            description="Seconds from the end of a request to its response's head. Or an object of host:port patterns "
            f"(as in egress.allow; * alone: every other destination, else {RESPONSE_TIMEOUT:g}) and seconds, of which "
            'the most specific counts: {"*": 300, "api.example:443": 900}.',
            extra=rule("seconds, or an object of host:port patterns and seconds", seconds_by_pattern),
        ),
    ] = RESPONSE_TIMEOUT
    drain_timeout: Annotated[
        Seconds, Meta(description="Seconds for what is under way to finish when a daemon is stopped.")
    ] = 30.0
    buffer_bytes: Annotated[
        int, Meta(ge=4096, le=1048576, description="Bytes held for a slow reader, per connection and direction.")
    ] = 65536
