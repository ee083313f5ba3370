"""vsock as Firecracker and Cloud Hypervisor offer it to the host of a VM ("hybrid vsock"): one UNIX socket.

The host dials a port of the guest by connecting to that socket and sending ``CONNECT PORT\\n``; ``OK NUMBER\\n`` comes
back when the guest has accepted, or the connection ends. What the guest dials at port N of CID 2 arrives at the UNIX
socket of the same name with ``_N`` appended, so that listening is as on any UNIX socket. Half-close is not relied on.
(Firecracker, docs/vsock.md.)
"""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.vsock.address import check_port

#: Bytes of the answer at most; a number of 32 bits makes 14.
_LONGEST_ANSWER: Final = 32
_ANSWER: Final = re.compile(rb"OK [0-9]{1,10}")


@implementer(IStreamClientEndpoint)
class HybridClientEndpoint:
    """Dials a port of the guest.

    :param path: the VM's UNIX socket.
    :param timeout: seconds for the connection and for the guest's answer, each.
    """

    def __init__(self, reactor: Any, path: str, port: int, timeout: float = 10.0) -> None:
        self._reactor = reactor
        self._path = path
        self._port = check_port(port)
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ConnectError`, and with its subclass `ConnectionRefusedError` when nothing listens."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        asking = _Asking(self._reactor, factory, self._port, self._timeout)
        await UNIXClientEndpoint(self._reactor, self._path, self._timeout).connect(_Once(asking))
        return await asking.answered


class _Once(Factory):
    """Makes one connection's protocol."""

    noisy = False

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See `IProtocolFactory`."""
        assert addr is not None
        self._asking.address = addr
        return self._asking


class _Asking(Protocol):
    """Asks for the port; when it is there, the connection becomes that of a protocol of the factory.

    :ivar answered: fires with that protocol; cancelled, it ends the connection.
    """

    def __init__(self, reactor: Any, factory: IProtocolFactory, port: int, timeout: float) -> None:
        self.address: IAddress = UNIXAddress(None)
        self.answered: Deferred[IProtocol] = Deferred(lambda _: self._end())
        self._reactor = reactor
        self._factory = factory
        self._port = port
        self._timeout = timeout
        self._answer = b""
        self._patience: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self._patience = self._reactor.callLater(self._timeout, self._fail, TimeoutError())
        self.transport.write(b"CONNECT %d\n" % self._port)

    def dataReceived(self, data: bytes) -> None:
        """Read the answer; what follows it is the guest's."""
        self._answer += data
        line, end, rest = self._answer.partition(b"\n")
        if not end and len(line) <= _LONGEST_ANSWER:
            return
        if not _ANSWER.fullmatch(line):
            self._fail(ConnectError(string=f"it answered {line[:_LONGEST_ANSWER]!r} to CONNECT {self._port}"))
            return
        protocol = self._factory.buildProtocol(self.address)
        if protocol is None:
            self._fail(ConnectError(string="the factory made no protocol"))
            return
        self._hand_over(protocol, rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The guest refused, or the VM has ended."""
        words = f"nothing listens on port {self._port} of the guest, or it is not up"
        self._fail(ConnectionRefusedError(string=words))

    def _hand_over(self, protocol: IProtocol, rest: bytes) -> None:
        transport: Any = self.transport
        self._be_patient()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        answered, self.answered = self.answered, Deferred()
        answered.callback(protocol)
        if rest:
            protocol.dataReceived(rest)

    def _fail(self, error: ConnectError) -> None:
        if not self.answered.called:
            self._end()
            self.answered.errback(error)

    def _end(self) -> None:
        self._be_patient()
        transport: Any = self.transport
        transport.abortConnection()

    def _be_patient(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
