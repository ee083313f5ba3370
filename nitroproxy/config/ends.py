"""The sections of the configuration about the two ends: transport, enclave and host_proxy."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from nitroproxy.config.kinds import (
    AbsolutePath,
    Destination,
    Interface,
    LoopbackAndPort,
    VsockPort,
    rule,
)
from nitroproxy.target import normalize_host


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
        AbsolutePath,
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
        LoopbackAndPort, Meta(description="Where the enclave daemon listens: a loopback address and a TCP port.")
    ]
    to: Annotated[Destination, Meta(description="The destination, which egress must allow.")]
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
    port: Annotated[VsockPort, Meta(ge=1, description="The vsock port of the proxy in the enclave.")] = 5000
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
        Interface, Meta(description="Where applications in the enclave find the proxy: the address it listens on.")
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

    interface: Annotated[Interface, Meta(description="The address that the gateway listens on.")] = "127.0.0.1"
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
            extra=rule("a host name", normalize_host),
        ),
    ] = ()
    rewrite_location: Annotated[
        bool,
        Meta(description="Have redirects of requests in path form (/https://...) lead through the proxy again."),
    ] = True
    health_interface: Annotated[
        Interface, Meta(description="The address of the listener for load balancers, orchestrators and scrapers.")
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
