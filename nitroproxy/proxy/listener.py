"""A listener: makes its connections, gives them their places, drains them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.downstream import Downstream
from nitroproxy.proxy.interfaces import AcceptedConnection, Client
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.opening import Opening, http
from nitroproxy.proxy.places import Places, Share
from nitroproxy.proxy.reserve import Reserve
from nitroproxy.proxy.route import Router
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.trace import ViaName
from nitroproxy.sockets.hangup import SocketTable
from nitroproxy.sockets.spare import MOMENT, SpareDescriptors

_log: Final = Logger()

#: Connections that are answered 503 at a time; of more, the oldest are aborted.
_MOST_TURNED_AWAY: Final = 256
#: Seconds between two looks for clients that have gone unseen.
_HANGUP_INTERVAL: Final = 0.5
#: Seconds between two requests to the peers to close what they keep in reserve.
_RELEASE_INTERVAL: Final = 1.0
#: Seconds between the decision to drain and the end of idle connections.
_GRACE: Final = 0.1


class DownstreamFactory(Factory):
    """Makes the protocol of each connection that a listener accepts.

    :param hop: the role's name in Proxy-Status, Via and problem documents.
    :param places: those that the listener shares with others; None: it has its own.
    :param opening: how its connections begin.
    :ivar via_name: its name in the Via of requests. A request may pass two gateways, but never one of them twice;
        the processes of one daemon are one gateway, so the composition root gives them one key.
    :ivar outer: what the listening socket is given: this, or what puts TLS around its connections.
    :ivar spare: descriptors for what the process accepts when it has no others.
    :ivar connections: all that are open and not being turned away, those in the reserve too.
    :ivar router: may be replaced while running, for the next requests; see `end_refused_tunnels` for what there is.
    :ivar release: called when the listener begins to drain, and each second while connections are left: asks the peers
        to close those that they keep in reserve, which cannot be told from here.
    :ivar settings: may be replaced while running; connections that are open take it over with their next request.
    """

    noisy = False

    def __init__(
        self,
        hop: str,
        router: Router,
        settings: ListenerSettings,
        deadlines: Deadlines,
        observer: Observer | None = None,
        places: Places | None = None,
        opening: Opening = http,
    ) -> None:
        self.hop = hop
        self.opening = opening
        self.router = router
        self.settings = settings
        self.deadlines = deadlines
        self.observer: Observer = observer or Observer()
        self.via_name = ViaName(hop, os.urandom(16))
        self.draining = False
        self.release: Callable[[], object] = lambda: None
        self.connections: set[AcceptedConnection] = set()
        self.spare = SpareDescriptors()
        self.outer: IProtocolFactory = self
        self._share = Share(places or Places())
        self._reserve = Reserve(deadlines, self._turn_away)
        #: Those that are being answered 503, in order of age.
        self._turned_away: dict[AcceptedConnection, None] = {}
        self._drained: Deferred[bool] | None = None
        self._looking = False
        #: Nothing that was under way has been aborted.
        self._complete = True
        #: `abort` has been called: nothing is waited for any more.
        self._at_once = False

    def limit(self) -> int:
        """How many connections are served at a time, with those of the listeners that share its places."""
        return max(self.settings.connections, self.settings.together)

    def buildProtocol(self, addr: IAddress | None) -> Downstream | None:
        if addr is not None and not self.settings.accepts(addr):
            self.observer.refused(Kind.PEER_DENIED, addr)
            return None
        return Downstream(self)

    def admit(self, connection: AcceptedConnection) -> Kind | None:
        """See `nitroproxy.proxy.interfaces.Listener`."""
        self.observer.opened()
        if self.draining:
            refusal = Kind.DRAINING
        elif self._take_place(connection) is None or self._reserve.add(connection):
            self.connections.add(connection)
            self._look_again()
            return None
        else:
            refusal = Kind.CONNECTION_LIMIT_REACHED
        self.observer.refused(refusal, connection.peer)
        self._linger_with(connection)
        return refusal

    def _take_place(self, connection: AcceptedConnection | Client) -> str | None:
        """Give *connection* a place; why there is none, or None."""
        if not self.spare.fill():
            return "this process has no file descriptors left (LimitNOFILE)"
        return self._share.take(connection, connection.peer, self.settings)

    def _linger_with(self, connection: AcceptedConnection) -> None:
        """*connection* is being answered 503: it keeps no other out, and their number is bounded."""
        self._turned_away[connection] = None
        if len(self._turned_away) > _MOST_TURNED_AWAY:
            oldest = next(iter(self._turned_away))
            del self._turned_away[oldest]
            oldest.abort()

    def _turn_away(self, connection: AcceptedConnection) -> None:
        """*connection* has left the reserve without a request."""
        self.connections.discard(connection)
        self.observer.refused(Kind.CONNECTION_LIMIT_REACHED, connection.peer)
        self._linger_with(connection)
        connection.turn_away()

    def head_complete(self, connection: AcceptedConnection) -> None:
        """See `nitroproxy.proxy.interfaces.Listener`."""
        self._reserve.head_complete(connection)

    def is_reserved(self, connection: AcceptedConnection) -> bool:
        """See `nitroproxy.proxy.interfaces.Listener`."""
        return connection in self._reserve

    def give_place(self, client: Client) -> None:
        """See `nitroproxy.proxy.interfaces.Listener`."""
        if self._share.has(client):
            return
        reason = self._take_place(client)
        if reason is not None:
            self.observer.refused(Kind.CONNECTION_LIMIT_REACHED, client.peer)
            raise ProxyError(Kind.CONNECTION_LIMIT_REACHED, reason)
        self._reserve.leave(client)

    def make_way(self) -> None:
        """End what has been in the reserve for a moment without a complete head: the process has no descriptors left.
        Called by the listening socket (`nitroproxy.sockets.spare`)."""
        while self._reserve.make_way(MOMENT):
            pass

    def lost(self, connection: AcceptedConnection) -> None:
        """*connection* has ended."""
        self.connections.discard(connection)
        self._turned_away.pop(connection, None)
        self._reserve.leave(connection)
        self._share.give_back(connection)
        self.spare.fill()
        self.observer.closed()
        if self._drained is not None and not self.connections:
            self._drained.callback(self._complete)
            self._drained = None

    def _look_again(self) -> None:
        if not self._looking:
            self._looking = True
            self.deadlines.after(_HANGUP_INTERVAL, self._look_for_hangups)

    def _look_for_hangups(self) -> None:
        self._looking = False
        sockets = SocketTable()
        try:
            for connection in list(self.connections):
                connection.look_for_hangup(sockets)
        finally:
            if self.connections:
                self._look_again()

    def end_refused_tunnels(self) -> None:
        """End the tunnels that the router refuses: it has been replaced, and another let them in."""
        count = sum([connection.end_refused_tunnel() for connection in list(self.connections)])
        if count:
            text = "{hop}: ended {count} tunnels that are not allowed any more"
            _log.info(text, event="tunnels_ended", hop=self.hop, count=count)

    def drain(self, timeout: float) -> Deferred[bool]:
        """Let the requests under way finish and end every connection.

        :param timeout: seconds after which what is left is aborted.
        :returns: fires with whether all finished in time, and nothing was aborted by `abort`.
        """
        self.draining = True
        if self._at_once:
            timeout = 0.0
        drained: Deferred[bool] = Deferred()
        # A request may be on its way on a connection that looks idle: what has been sent by now is still answered.
        self.deadlines.after(min(_GRACE, timeout), self._drain_connections)
        if not self.connections:
            drained.callback(self._complete)
            return drained
        self._drained = drained
        self._ask_for_release()
        deadline = self.deadlines.after(timeout, self._abort_rest)
        drained.addCallback(lambda complete: self._forget_deadline(deadline, complete))
        return drained

    def _ask_for_release(self) -> None:
        if self._drained is not None:
            self.release()
            self.deadlines.after(_RELEASE_INTERVAL, self._ask_for_release)

    def _drain_connections(self) -> None:
        for connection in list(self.connections):
            connection.drain()

    @staticmethod
    def _forget_deadline(deadline: Deadline, complete: bool) -> bool:
        deadline.cancel()
        return complete

    def abort(self) -> None:
        """End every connection at once, and those that come until the listener drains when it does: the daemon is being
        stopped."""
        self._at_once = True
        error = ProxyError(Kind.DRAINING, "aborted: the proxy is being stopped")
        if any(connection.in_use for connection in self.connections):
            self._complete = False
        for connection in [*self.connections, *self._turned_away]:
            connection.cut_off(error)

    def _abort_rest(self) -> None:
        drained, self._drained = self._drained, None
        self.abort()
        if drained is not None:
            drained.callback(False)
