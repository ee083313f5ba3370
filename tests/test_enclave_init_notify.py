"""The daemon's word that it is ready and alive, on a real UNIX socket."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from nitroproxy.daemon.systemd import Notifier
from nitroproxy.enclave.init_children import Account
from nitroproxy.enclave.init_notify import NotifySocket, listen, variables


class NotifyTests(TestCase):
    """`NotifySocket`, with the daemon's own `Notifier` at the other end."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "notify"
        self.ready: Deferred[None] = Deferred()
        self.alive: Deferred[None] = Deferred()
        self.protocol = NotifySocket(lambda: self.ready.callback(None), lambda: self.alive.callback(None))

    def _listen(self, account: Account | None) -> None:
        listen(reactor, self.path, self.protocol, account)
        self.addCleanup(self.protocol.transport.stopListening)  # type: ignore[union-attr]

    async def test_told(self) -> None:
        """What the daemon sends by the variables arrives, each as what it is."""
        self._listen(None)
        notifier = Notifier(variables(self.path, 10.0))
        self.assertEqual(notifier.watchdog_seconds, 10.0)
        notifier.status("READY=1 is not what a status says")
        notifier.ping()
        await self.alive
        self.assertNoResult(self.ready)
        notifier.ready("listening")
        await self.ready

    def test_private(self) -> None:
        """Only the daemon's user may send; a socket that an earlier init left is replaced."""
        self.path.touch()
        account = Account(65532, 65532) if os.geteuid() == 0 else Account(os.geteuid(), os.getegid())
        self._listen(account)
        status = self.path.stat()
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_uid), (0o600, account.uid))

    def test_noise(self) -> None:
        """Datagrams of other content do nothing."""
        for datagram in (b"", b"READY=0", b"READY=10", b"\xff\xff", b"X_READY=1"):
            self.protocol.datagramReceived(datagram, None)
        self.assertNoResult(self.ready)
