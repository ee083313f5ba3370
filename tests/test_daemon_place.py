"""Places where a daemon listens, and where it cannot."""

from __future__ import annotations

import errno
import io
import sys

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.daemon.place import ListeningPlace, Unable
from tests.wire import OneHop


@implementer(IStreamServerEndpoint)
class Taken:
    """An endpoint that cannot listen."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(self._error)


class ListenerTests(SynchronousTestCase):
    """A daemon that cannot listen ends."""

    def test_cannot_listen(self) -> None:
        """It ends with status 1 and one line that has the place and the reason once."""
        taken = OSError(errno.EADDRINUSE, "Address already in use")
        for error, reason in (
            (CannotListenError("127.0.0.1", 8080, taken), "Address already in use"),
            (CannotListenError("any", b"/run/x.sock", OSError("Cannot acquire lock")), "in use by another daemon"),
            (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
            (ValueError("no socket"), "no socket"),
        ):
            said = io.StringIO()
            self.patch(sys, "__stderr__", said)
            listener = ListeningPlace(Taken(error), "127.0.0.1:8080", OneHop().factory)
            unable = self.assertRaises(Unable, listener.listen)
            self.assertEqual(unable.code, 1)
            self.assertEqual(said.getvalue(), f"nitroproxy-test: cannot listen on 127.0.0.1:8080: {reason}\n")
            self.assertFalse(listener.accepting)

    def test_twistd_hears(self) -> None:
        """In the background twistd tells an Exception, and nothing else, to who started it: it is one."""
        self.assertTrue(issubclass(Unable, Exception) and issubclass(Unable, SystemExit))
