"""Sockets that init holds for the daemon: `nitroproxy.enclave.init_activation`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.init_activation import held, words

_TWISTD = """
import os, socket, sys
from nitroproxy.enclave import init_activation
import twisted.scripts.twistd
def run():
    names = os.environ["LISTEN_FDNAMES"].split(":")
    assert int(os.environ["LISTEN_PID"]) == os.getpid()
    assert int(os.environ["LISTEN_FDS"]) == len(names)
    for number, name in enumerate(names, 3):
        print(name, socket.socket(fileno=number).getsockname()[1])
    print(*sys.argv)
twisted.scripts.twistd.run = run
init_activation.main()
"""


class ActivationTests(SynchronousTestCase):
    """What the daemon finds."""

    def test_sockets(self) -> None:
        """The daemon has the sockets where sd_listen_fds(3) looks, by name, addressed to it, and its own arguments."""
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            descriptors = held({"first": first, "second": second})
            for descriptor in descriptors.values():
                self.addCleanup(os.close, descriptor)
            command = words(descriptors, ["-n", "nitroproxy-enclave"])
            self.assertEqual(command[:4], [sys.executable, "-P", "-m", "nitroproxy.enclave.init_activation"])
            command[1:4] = ["-c", _TWISTD]
            environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(
                command, env=environ, pass_fds=tuple(descriptors.values()), capture_output=True, text=True, check=False
            )
            expected = [f"first {first.getsockname()[1]}", f"second {second.getsockname()[1]}"]
            self.assertEqual(done.stdout.splitlines(), [*expected, "twistd -n nitroproxy-enclave"], done.stderr)

    def test_out_of_the_way(self) -> None:
        """Init's descriptors are above those that the protocol uses, and no other child has them."""
        with socket.socket() as one:
            [descriptor] = held({"one": one}).values()
            self.addCleanup(os.close, descriptor)
            self.assertGreaterEqual(descriptor, 64)
            self.assertFalse(os.get_inheritable(descriptor))
