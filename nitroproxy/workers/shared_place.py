"""The supervisor's view of a place at which its workers accept: see `nitroproxy.daemon.place.Place`."""

from __future__ import annotations

from nitroproxy.workers.shared_socket import SharedSocket
from nitroproxy.workers.supervisor import Supervisor


class SharedPlace:
    """A `Place` whose socket the supervisor holds and whose connections its workers have.

    :param number: which of the workers' places it is.
    """

    def __init__(self, socket: SharedSocket, supervisor: Supervisor, number: int) -> None:
        self._socket = socket
        self._supervisor = supervisor
        self._number = number

    @property
    def name(self) -> str:
        """See `Place`."""
        return self._socket.name

    def listen(self) -> None:
        """See `Place`; the workers accept as soon as they are up."""
        self._socket.open()

    async def stop(self, timeout: float) -> bool:
        """See `Place`."""
        timeout -= await self._socket.seal()
        # First: the last worker to close the socket then finds all connections in the queue and accepts them. After it
        # no process could.
        self._socket.close()
        return await self._supervisor.stop(self._number, max(timeout, 0.0))

    @property
    def accepting(self) -> bool:
        """Whether a worker accepts."""
        return self._supervisor.accepting(self._number)

    @property
    def connections(self) -> int:
        """How many all workers have open."""
        return self._supervisor.connections(self._number)

    def abort(self) -> None:
        """See `Place`."""
        self._supervisor.abort(self._number)
