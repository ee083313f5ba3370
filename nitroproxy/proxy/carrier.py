"""From a request to what carries it out: the rules that hold for every role, then the router's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.headers import names_in_via
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.dialling import Dialling
from nitroproxy.proxy.exchange import Exchange
from nitroproxy.proxy.local import LocalExchange, OptionsAnswer
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import ClientExchange, Dial, Forward

if TYPE_CHECKING:
    from nitroproxy.proxy.downstream import Downstream
    from nitroproxy.proxy.listener import ListenerSettings


def carrier(downstream: Downstream, request: Request, record: Record, settings: ListenerSettings) -> ClientExchange:
    """What carries *request* out for *downstream*, not started yet.

    :raises ProxyError: when nothing does.
    """
    factory = downstream.factory
    if request.method == b"TRACE":
        raise ProxyError(Kind.METHOD_NOT_ALLOWED, "TRACE is not passed on")
    if names_in_via(request.fields.values.get(b"via", ()), factory.pseudonym):
        raise ProxyError(Kind.PROXY_LOOP_DETECTED, "the request's Via says that it has been here")
    if request.method == b"OPTIONS" and request.fields.get(b"max-forwards") == b"0":
        return OptionsAnswer(downstream, request)
    route = factory.router.route(request, record)
    deadlines = factory.deadlines
    if isinstance(route, Dial):
        return Dialling(downstream, route, record, settings.connect_timeout, deadlines)
    if isinstance(route, Forward):
        return Exchange(downstream, request, route, record, settings.exchange, deadlines, factory.pseudonym)
    return LocalExchange(downstream, request, route, settings.exchange.response_timeout, deadlines)
