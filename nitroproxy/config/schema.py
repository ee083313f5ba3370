"""What can be configured: every key with its type, limits, default and description, and the JSON Schema made of them.

The structs are plain values. This module knows neither where a value comes from (file, environment, command line:
`load`) nor Twisted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from nitroproxy.policy import ByPattern, Policy
from nitroproxy.target import normalize_host

#: On the host, nitro-cli takes this vsock port for the heartbeat of a starting enclave.
_HEARTBEAT_PORT: Final = 9000


#: Seconds that a response may take where nothing else is configured.
RESPONSE_TIMEOUT: Final = 300.0


@dataclass(frozen=True)
class Rule:
    """A check that a JSON Schema type cannot express.

    :ivar expected: what the value should be, to follow the word "expected".
    :ivar examine: raises ValueError, with or without a reason for a person, when the value is not that. It is called
        with each item of a list.
    """

    expected: str
    examine: Callable[[Any], object]


def _absolute_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise ValueError


def _address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError from None


def address_and_port(text: str) -> tuple[str, int]:
    """The IP address and the port of *text*, ``0.0.0.0:443`` or ``[::]:443``.

    :raises ValueError: when it is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("an IPv6 address stands in brackets")
    address = host.removeprefix("[").removesuffix("]") if ":" in host else host
    _address(address)
    return str(ip_address(address)), int(port)


def _loopback_and_port(text: str) -> None:
    if not ip_address(address_and_port(text)[0]).is_loopback:
        raise ValueError("whoever reaches it uses the forward as the application does")


def destination(text: str) -> tuple[str, int]:
    """The host, in its normal form, and the port of *text*, ``db.example:5432``.

    :raises ValueError: when it is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError
    return normalize_host(host), int(port)


def _address_url(url: str) -> None:
    parts = urlsplit(url)
    _address(parts.hostname or "")
    if url != f"http://{parts.netloc}" or "@" in url or url.endswith(":") or parts.port == 0:
        raise ValueError


def _role_name(name: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z_+=,.@-]{1,64}", name) or not name.strip("."):
        raise ValueError("an ARN or an instance profile is not it" if "/" in name else "")


def _sha256(digits: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError


def proxy_address(url: str) -> tuple[str, int]:
    """The host and the port of an HTTP proxy, ``http://proxy.example:3128``.

    :raises ValueError: when *url* is not that.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError("only http:// proxies are spoken to" if scheme.lower() == "https" else "")
    if "@" in rest:
        raise ValueError("credentials stand in credentials_file")
    return destination(rest.removesuffix("/"))


def _vsock_port(port: int) -> None:
    if port == _HEARTBEAT_PORT:
        raise ValueError(f"nitro-cli uses {_HEARTBEAT_PORT} for the heartbeat of a starting enclave")


def _pattern(text: str) -> None:
    Policy([text], [])


def _seconds_by_pattern(given: float | dict[str, float]) -> None:
    if isinstance(given, dict):
        ByPattern(given, RESPONSE_TIMEOUT)


def _by_pattern(given: dict[str, object]) -> None:
    ByPattern(given, None)


def _rule(expected: str, examine: Callable[[Any], object]) -> dict[str, Any]:
    return {"rule": Rule(expected, examine)}


_VsockPort = Annotated[
    int,
    Meta(
        le=4294967294,
        extra_json_schema={"not": {"const": _HEARTBEAT_PORT}},
        extra=_rule(f"a vsock port other than {_HEARTBEAT_PORT}", _vsock_port),
    ),
]
_AbsolutePath = Annotated[str, Meta(pattern="^/", extra=_rule("an absolute path", _absolute_path))]
_Interface = Annotated[
    str,
    Meta(
        extra_json_schema={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        extra=_rule("an IP address", _address),
    ),
]
_AddressAndPort = Annotated[
    str, Meta(extra=_rule("an IP address and a port such as 0.0.0.0:443 or [::]:443", address_and_port))
]
_LoopbackAndPort = Annotated[
    str,
    Meta(extra=_rule("a loopback address and a port such as 127.0.0.1:5432 or [::1]:5432", _loopback_and_port)),
]
_Destination = Annotated[str, Meta(extra=_rule("a host and a port such as db.example:5432", destination))]
_Patterns = Annotated[tuple[str, ...], Meta(extra=_rule("a host:port pattern", _pattern))]
_Networks = Annotated[tuple[str, ...], Meta(extra=_rule("a network such as 10.0.0.0/8", ip_network))]
_Seconds = Annotated[float, Meta(gt=0, le=86400)]


class Transport(Struct, frozen=True, forbid_unknown_fields=True):
    """How the host and the enclave reach each other."""

    kind: Annotated[
        Literal["vsock", "hybrid", "unix"],
        Meta(
            description="vsock; hybrid: the host's side of a Firecracker or Cloud Hypervisor VM, vsock in the VM; "
            "unix: UNIX sockets for development on a machine without an enclave."
        ),
    ] = "vsock"
    directory: Annotated[
        _AbsolutePath,
        Meta(
            description="For unix: port N of the enclave is <directory>/enclave/N.sock, of the host "
            "<directory>/host/N.sock. For hybrid: the VM's socket is <directory>/vsock.sock. For vsock: where "
            "run-enclave says which enclave runs (enclave.json)."
        ),
    ] = "/run/nitroproxy"
    parent_cid: Annotated[
        int,
        Meta(
            ge=1,
            le=3,
            description="The host's vsock CID as the enclave sees it: 3 on Nitro, 2 under other hypervisors, 1 when "
            "both sides run on one kernel (vsock_loopback).",
        ),
    ] = 3


class Transparent(Struct, frozen=True, forbid_unknown_fields=True):
    """Applications in the enclave that know no proxy: they look a name up and connect."""

    enabled: Annotated[
        bool,
        Meta(
            description="Whether every TCP connection of an application in the enclave comes to the proxy, for any "
            "port and protocol. `nitroproxy enclave-init` makes the network so."
        ),
    ] = False
    dns: Annotated[
        bool,
        Meta(
            description="Whether applications in the enclave can look up the names that egress.allow allows: they get "
            "addresses that stand for the names, and nothing is looked up outside."
        ),
    ] = True


class EnclaveForward(Struct, frozen=True, forbid_unknown_fields=True):
    """A port in the enclave that leads to one destination outside, for applications that know no proxy."""

    listen: Annotated[
        _LoopbackAndPort, Meta(description="Where the enclave daemon listens: a loopback address and a TCP port.")
    ]
    to: Annotated[_Destination, Meta(description="The destination, which egress must allow.")]
    tls: Annotated[
        bool,
        Meta(
            description="true: the enclave daemon starts TLS with the destination and verifies it as for https://, for "
            "applications without; false: bytes pass as they are."
        ),
    ] = False


class Enclave(Struct, frozen=True, forbid_unknown_fields=True):
    """The enclave and the proxy in it."""

    cid: Annotated[
        int,
        Meta(
            ge=0,
            le=4294967294,
            extra_json_schema={"not": {"const": 3}},
            description="The enclave's vsock CID, 4 or more; 0: the hypervisor chooses one, which run-enclave writes "
            "to <transport.directory>/enclave.json for the host daemon. Only when both sides run on one kernel is it "
            "transport.parent_cid.",
        ),
    ] = 16
    port: Annotated[_VsockPort, Meta(ge=1, description="The vsock port of the proxy in the enclave.")] = 5000
    memory_mb: Annotated[int, Meta(ge=64, description="Memory to start the enclave with, in MiB.")] = 512
    cpu_count: Annotated[
        int, Meta(ge=1, description="CPUs to start the enclave with; where cores have two threads, an even number.")
    ] = 2
    processes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that the enclave daemon serves with, a core each; of more than one each has "
            "limits.* for itself.",
        ),
    ] = 1
    proxy_interface: Annotated[
        _Interface, Meta(description="Where applications in the enclave find the proxy: the address it listens on.")
    ] = "127.0.0.1"
    proxy_port: Annotated[
        int, Meta(ge=0, le=65535, description="The TCP port for applications in the enclave; 0: no such listener.")
    ] = 8080
    transparent: Annotated[
        Transparent,
        Meta(description="Proxying for applications in the enclave that know no proxy."),
    ] = Transparent()
    forwards: Annotated[
        tuple[EnclaveForward, ...],
        Meta(max_length=64, description="Ports in the enclave that lead to one destination each, byte by byte."),
    ] = ()


class HostProxy(Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway: where applications on the host find the proxy."""

    interface: Annotated[_Interface, Meta(description="The address that the gateway listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="The TCP port that the gateway listens on.")] = 8080
    processes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that the host daemon serves with, a core each; of more than one each has limits.* "
            "for itself.",
        ),
    ] = 1
    max_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="How often a request that cannot have been seen by anyone yet is tried again. "
            "A request that may have been acted on never is.",
        ),
    ] = 3
    retry_delay: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="The longest that all retries of one request wait together, in seconds; the delays double.",
        ),
    ] = 1.0
    names: Annotated[
        tuple[str, ...],
        Meta(
            description="Host names under which browsers may reach the proxy, besides localhost and IP addresses; "
            "requests of other clients are not looked at.",
            extra=_rule("a host name", normalize_host),
        ),
    ] = ()
    rewrite_location: Annotated[
        bool,
        Meta(description="Have redirects of requests in path form (/https://...) lead through the proxy again."),
    ] = True
    health_interface: Annotated[
        _Interface, Meta(description="The address of the listener for load balancers, orchestrators and scrapers.")
    ] = "127.0.0.1"
    health_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="Its TCP port, for /health, /metrics and /status; 0: no such listener."),
    ] = 0
    health_status: Annotated[
        bool,
        Meta(description="Whether /status is there too where health_interface is no loopback address."),
    ] = False
    drain_delay: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds after SIGTERM in which /health/ready fails and the gateway still accepts, so that "
            "load balancers send their clients elsewhere first.",
        ),
    ] = 0.0


class UpstreamProxy(Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP proxy that is the host's only way out."""

    url: Annotated[
        str,
        Meta(
            description="Where it listens.",
            extra=_rule("a URL such as http://proxy.example:3128", proxy_address),
        ),
    ]
    credentials_file: Annotated[
        _AbsolutePath | None,
        Meta(
            description="A file with one line, user:password, out of reach of others (0600 or 0640), for Basic "
            "authentication; null: none."
        ),
    ] = None
    no_proxy: Annotated[
        _Patterns, Meta(description="host:port patterns, as in egress.allow, of what the relay dials itself.")
    ] = ()


class Egress(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be reached. Enforced twice: in the enclave, and in the relay on the host."""

    port: Annotated[_VsockPort, Meta(ge=1024, description="The vsock port of the egress relay on the host.")] = 5001
    allow: Annotated[
        _Patterns,
        Meta(
            description="host:port patterns that may be reached. * is one label, or the whole host or port; "
            "**. is any number of labels; a CIDR matches address literals."
        ),
    ] = ("*:443",)
    deny: Annotated[
        _Patterns, Meta(description="host:port patterns that may not be reached, whatever egress.allow says.")
    ] = ()
    allow_addresses: Annotated[
        _Networks,
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

    listen: Annotated[_AddressAndPort, Meta(description="Where the host daemon listens: an IP address and a TCP port.")]
    vsock: Annotated[_VsockPort, Meta(ge=1, description="The vsock port of the enclave that it leads to.")]
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
    interface: Annotated[_Interface, Meta(description="The address that the host daemon listens on for tcp_port.")] = (
        "0.0.0.0"  # noqa: S104  # it is for clients from outside
    )
    port: Annotated[
        _VsockPort,
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
        _AbsolutePath | None,
        Meta(
            description="A PEM file, in the enclave's image, of the authorities of client certificates: a client that "
            "has one may use the attested listener as a proxy. null: nobody may."
        ),
    ] = None


class ClientCertificate(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate by which the enclave authenticates itself to a destination."""

    certificate_file: Annotated[
        _AbsolutePath, Meta(description="A PEM file: the certificate, then those that lead to its authority.")
    ]
    key_file: Annotated[
        _AbsolutePath,
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
        _AbsolutePath | None,
        Meta(
            description="A PEM file of the authorities to trust instead of the built-in ones; null: the built-in ones."
        ),
    ] = None
    extra_ca_file: Annotated[
        _AbsolutePath | None,
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
            extra=_rule("an object of host:port patterns, each with certificate_file and key_file", _by_pattern),
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
    header_timeout: Annotated[_Seconds, Meta(description="Seconds in which a request's head must be complete.")] = 10.0
    idle_timeout: Annotated[_Seconds, Meta(description="Seconds that a connection may be without any progress.")] = 60.0
    tunnel_timeout: Annotated[
        _Seconds,
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
        _Seconds, Meta(description="Seconds for a connection to the destination, its TLS handshake included.")
    ] = 10.0
    response_timeout: Annotated[
        _Seconds | dict[str, _Seconds],
        Meta(
            description="Seconds from the end of a request to its response's head. Or an object of host:port patterns "
            f"(as in egress.allow; * alone: every other destination, else {RESPONSE_TIMEOUT:g}) and seconds, of which "
            'the most specific counts: {"*": 300, "api.example:443": 900}.',
            extra=_rule("seconds, or an object of host:port patterns and seconds", _seconds_by_pattern),
        ),
    ] = RESPONSE_TIMEOUT
    drain_timeout: Annotated[
        _Seconds, Meta(description="Seconds for what is under way to finish when a daemon is stopped.")
    ] = 30.0
    buffer_bytes: Annotated[
        int, Meta(ge=4096, le=1048576, description="Bytes held for a slow reader, per connection and direction.")
    ] = 65536


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
        _VsockPort,
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
        _AbsolutePath | None,
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
            extra=_rule("the name of a role: up to 64 letters, digits and _+=,.@-", _role_name),
        ),
    ] = None
    socket: Annotated[_AbsolutePath, Meta(description="The UNIX socket at which the host daemon asks for them.")] = (
        "/run/nitroproxy-credentials/credentials.sock"
    )
    metadata_url: Annotated[
        str,
        Meta(
            pattern="^http://",
            description="The instance metadata service; http://[fd00:ec2::254] where there is no IPv4.",
            extra=_rule("http:// and an IP address, perhaps with a port", _address_url),
        ),
    ] = "http://169.254.169.254"
    token_sha256: Annotated[
        str | None,
        Meta(
            description="The SHA-256, in hex, of the token with which an application in the enclave asks for them. "
            "enclave-init makes a token at each start and sets this; null: no application gets any.",
            extra=_rule("64 hexadecimal digits in lower case", _sha256),
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
