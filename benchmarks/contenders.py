"""What nitroproxy is compared with: the other programs, of which ``--quick`` takes a few and ``--all`` takes more, or
nitroproxy of another checkout (``--against``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from benchmarks import forward_peers, go_peers, ours, peers
from benchmarks.clients import Door
from benchmarks.origin import Origin
from benchmarks.pairs import Plan
from benchmarks.processes import Crew, Process
from benchmarks.wrk import Entry

Start = Callable[[Crew, Origin], Entry]
StartRelay = Callable[[Crew, int], tuple[Door, Process]]

GO: Final = "Go ReverseProxy"
CADDY: Final = "Caddy"
GO_CHAIN: Final = "Go ReverseProxy twice, goproxy"
GOPROXY: Final = "goproxy"
HAPROXY: Final = "haproxy (tcp, splice-auto)"
STOCK: Final = "Resource + Agent"

_GATEWAYS: Final[dict[str, Start]] = {
    "nginx": peers.nginx,
    "haproxy": peers.haproxy,
    GO: go_peers.reverse_proxy,
    CADDY: go_peers.caddy,
    STOCK: peers.stock_gateway,
}
_CHAINS: Final[dict[str, Start]] = {
    GO_CHAIN: go_peers.chain,
    STOCK: lambda crew, origin: peers.stock_chain(crew, origin, origin.tls),
}
#: All but goproxy forward to one fixed address, without a CONNECT.
_RELAYS: Final[dict[str, StartRelay]] = {
    HAPROXY: peers.haproxy_relay,
    GOPROXY: go_peers.goproxy,
    "socat": peers.socat_relay,
    "portforward": peers.stock_relay,
}
#: With these the requirements are compared.
_QUICK: Final = frozenset({"nginx", GO, GO_CHAIN, HAPROXY, GOPROXY})
_T = TypeVar("_T")


def gateways(plan: Plan) -> dict[str, Start]:
    """The contenders of the gateway hop."""
    if plan.against is not None:
        return {_other(plan): partial(ours.start_gateway, root=plan.against)}
    return _few(plan, _GATEWAYS) | (forward_peers.FORWARD if plan.everything else {})


def chains(plan: Plan) -> dict[str, Start]:
    """The contenders of the whole chain."""
    if plan.against is not None:
        return {_other(plan): partial(ours.start_chain, root=plan.against)}
    return _few(plan, _CHAINS)


def relays(plan: Plan) -> dict[str, StartRelay]:
    """The contenders of the relay."""
    if plan.against is not None:
        root = plan.against
        return {_other(plan): lambda crew, raw: ours.start_relay(crew, f"127.0.0.1:{raw}", "against", root)}
    return _few(plan, _RELAYS)


def _few(plan: Plan, contenders: Mapping[str, _T]) -> dict[str, _T]:
    return {name: start for name, start in contenders.items() if name in _QUICK or not plan.quick}


def _other(plan: Plan) -> str:
    return f"nitroproxy in {plan.against}"
