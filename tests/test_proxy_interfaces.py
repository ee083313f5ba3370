"""How the parts of the engine see each other: what implements an interface has all of it."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy import interfaces
from nitroproxy.proxy.connect_request import ConnectRequest
from nitroproxy.proxy.downstream import Downstream
from nitroproxy.proxy.exchange import Exchange
from nitroproxy.proxy.interfaces import AcceptedConnection, Client, ClientExchange, Listener
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.local import LocalExchange, OptionsAnswer
from tests.wire import OneHop


class InterfaceTests(SynchronousTestCase):
    """The protocols, and who implements them."""

    def members(self, interface: Any) -> set[str]:
        """The names that *interface* asks for."""
        names = {*vars(interface), *interface.__annotations__}
        return {name for name in names if not name.startswith("_")}

    def test_methods(self) -> None:
        """Each method is there and takes the same arguments: the engine calls them by position."""
        for interface, implementations in (
            (ClientExchange, (Exchange, LocalExchange, ConnectRequest, OptionsAnswer)),
            (Client, (Downstream,)),
            (AcceptedConnection, (Downstream,)),
            (Listener, (DownstreamFactory,)),
        ):
            for name in self.members(interface):
                wanted = getattr(interface, name, None)
                if not inspect.isfunction(wanted):
                    continue
                for implementation in implementations:
                    found = list(inspect.signature(getattr(implementation, name)).parameters)
                    self.assertEqual(found, list(inspect.signature(wanted).parameters), (implementation, name))

    def test_attributes(self) -> None:
        """A connection and its listener have what the interfaces name."""
        hop = OneHop()
        wire = hop.client()
        for implementation, asked in ((wire.protocol, (Client, AcceptedConnection)), (hop.factory, (Listener,))):
            for interface in asked:
                missing = {name for name in self.members(interface) if not hasattr(implementation, name)}
                self.assertEqual(missing, set(), interface)

    def test_nothing_but_interfaces(self) -> None:
        """The module does nothing: all that it defines is a Protocol."""
        defined = [one for one in vars(interfaces).values() if getattr(one, "__module__", "") == interfaces.__name__]
        self.assertTrue(defined)
        self.assertTrue(all(getattr(one, "_is_protocol", False) for one in defined))
