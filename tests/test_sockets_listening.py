"""Whether somebody listens, by the kernel's tables."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.sockets.listening import listens

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class ListeningTests(SynchronousTestCase):
    """Real sockets, and tables as they may look."""

    def table(self, *lines: str) -> Path:
        proc = Path(self.mktemp())
        proc.mkdir()
        rest = "00000000:00000000 00:00000000 00000000 0 0 1 1 0 100 0 0 10 0\n"
        (proc / "tcp").write_text(_HEAD + "".join(f"   0: {line} {rest}" for line in lines))
        return proc

    def test_real(self) -> None:
        """A listener is seen on the loopback and on every address, of either family, and not once it has gone."""
        for family, host in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "0.0.0.0"),
            (socket.AF_INET6, "::"),
        ):
            with socket.socket(family) as listener:
                listener.bind((host, 0))
                port = listener.getsockname()[1]
                self.assertFalse(listens(port), "it is bound and does not listen")
                listener.listen()
                self.assertTrue(listens(port), host)
                with socket.create_connection(("127.0.0.1", port)):
                    self.assertTrue(listens(port))
            self.assertFalse(listens(port))

    def test_elsewhere(self) -> None:
        """A listener on another address does not count."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.2", 0))
            listener.listen()
            self.assertFalse(listens(listener.getsockname()[1]))

    def test_connections_are_not_read(self) -> None:
        """The table is read as far as its listeners, which come first."""
        proc = self.table("0100007F:01BB 00000000:0000 0A", "0100007F:0050 0100007F:9999 01", "nonsense")
        self.assertTrue(listens(443, proc))
        self.assertFalse(listens(80, proc))

    def test_no_tables(self) -> None:
        """Without tables nothing listens; one that cannot be read is an error."""
        proc = Path(self.mktemp())
        proc.mkdir()
        self.assertFalse(listens(443, proc))
        (proc / "tcp").mkdir()
        self.assertRaises(OSError, listens, 443, proc)
