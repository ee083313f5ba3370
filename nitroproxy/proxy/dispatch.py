"""From a request to what carries it out: the rules that hold for every role, then the router's word."""

from __future__ import annotations

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Fields, Request
from nitroproxy.proxy.browser import check_origin
from nitroproxy.proxy.connect_request import ConnectRequest
from nitroproxy.proxy.exchange import Exchange
from nitroproxy.proxy.interfaces import Client, ClientExchange, Listener
from nitroproxy.proxy.local import LocalExchange, OptionsAnswer
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Dial, Forward, Local
from nitroproxy.proxy.settings import ListenerSettings


def dispatch(
    client: Client, request: Request, record: Record, settings: ListenerSettings, listener: Listener
) -> ClientExchange:
    """What carries *request* out for *client*, not started yet.

    :raises ProxyError: when nothing does.
    """
    if request.method == b"TRACE":
        raise ProxyError(Kind.METHOD_NOT_ALLOWED, "TRACE is not passed on")
    if listener.via_name.is_in(request.fields.values.get(b"via", ())):
        raise ProxyError(Kind.PROXY_LOOP_DETECTED, "the Via field says that this request has been here before")
    if request.method == b"OPTIONS" and request.fields.get(b"max-forwards") == b"0":
        return OptionsAnswer(client, request)
    record.certified = getattr(client.transport, "certified", False)
    route = listener.router.route(request, record)
    if isinstance(route, Forward) and route.application:
        client.response.leave_as_is()
    elif request.target.startswith(b"/"):
        page = isinstance(route, Local) and request.method in (b"GET", b"HEAD")
        check_origin(request, page=page, names=settings.names)
    if not isinstance(route, Local):
        listener.give_place(client)
    if isinstance(route, Dial):
        request.fields = Fields()  # A tunnel may last for hours, and its request's head be large.
        return ConnectRequest(client, route, record, settings.connect_timeout)
    if isinstance(route, Forward):
        return Exchange(client, request, route, record, settings.exchange, listener.deadlines, listener.via_name)
    return LocalExchange(client, request, route, record, settings.idle_timeout)
