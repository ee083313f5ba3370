"""Which composition root a process gets, and the option by which a worker is started."""

from __future__ import annotations

import io
import socket
import struct
import sys
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.load import load
from nitroproxy.daemon.place import Unable
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.workers import start as start_module
from nitroproxy.workers.start import ProcessOptions, service_of
from nitroproxy.workers.worker import WorkerStart
from tests.roles import FakeReactor, FakeRole


class Options(ProcessOptions):
    """A daemon's."""

    name = "nitroproxy-test"


class StartTests(SynchronousTestCase):
    """A process's first moments."""

    def setUp(self) -> None:
        self.said = io.StringIO()
        self.patch(sys, "__stderr__", self.said)
        self.role = FakeRole()

    def options(self, *arguments: str) -> Options:
        options = Options({})
        options.parseOptions(arguments)
        return options

    def channel(self, message: bytes | None) -> None:
        """A worker's end of the channel on which *message* waits; None: the supervisor has gone."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.patch(start_module, "CHANNEL", theirs.fileno())
        with ours:
            if message is not None:
                ours.sendall(struct.pack("!I", len(message)) + message)

    def made(self, name: str) -> list[tuple[Any, ...]]:
        """How a root has been made from now on."""
        calls: list[tuple[Any, ...]] = []

        class Root:
            daemon = name

            def __init__(self, *arguments: Any) -> None:
                calls.append(arguments)

        self.patch(start_module, name, Root)
        return calls

    def service(self, options: Options) -> Any:
        reactor: Any = FakeReactor()
        return service_of(self.role, reactor, options)

    def test_alone(self) -> None:
        """One process is the whole daemon, after what it cannot run without has been examined."""
        self.role.count = 1
        self.made("Alone")
        self.assertEqual(self.service(self.options()), "Alone")
        self.assertEqual(self.role.done, ["check"])

    def test_supervisor(self) -> None:
        """The first of several is their supervisor, on the host and in the enclave alike."""
        self.made("SupervisorDaemon")
        self.assertEqual(self.service(self.options()), "SupervisorDaemon")

    def test_worker(self) -> None:
        """A process that the supervisor starts is the worker of that number, with the configuration that is sent."""
        configuration = load(None, environ={}, options=["limits.connections=7"])
        sent = WorkerStart(msgspec.json.encode(configuration), 2, ["a"], b"key")
        self.channel(sent.to_bytes())
        calls = self.made("WorkerDaemon")
        options = self.options("--worker", "2")
        self.assertEqual(options.configuration.settings.limits.connections, 7)
        self.assertEqual(self.service(options), "WorkerDaemon")
        self.assertEqual(calls[0][-2:], (2, sent))
        self.assertEqual(self.role.done, [])

    def refused(self, *arguments: str) -> str:
        self.assertRaises(Unable, self.options, *arguments)
        [line] = self.said.getvalue().splitlines()
        return line

    def test_other_version(self) -> None:
        """A worker of another version than its supervisor ends with a line that says so, no traceback (K6)."""
        self.channel(msgspec.msgpack.encode({"version": "9.9"}))
        self.assertIn("nitroproxy-test: worker 2: the supervisor runs 9.9 and", self.refused("--worker", "2"))

    def test_unreadable_configuration(self) -> None:
        """So does one that cannot read the configuration it is sent."""
        self.channel(WorkerStart(b"{}", 2, ["a"], b"key").to_bytes())
        self.assertIn("the supervisor's configuration cannot be read", self.refused("--worker", "2"))

    def test_supervisor_gone(self) -> None:
        """A worker whose supervisor has ended says that."""
        self.channel(None)
        self.assertEqual(self.refused("--worker", "2"), "nitroproxy-test: worker 2: the supervisor has gone")

    def test_not_for_people(self) -> None:
        """--worker without a supervisor is an error that says so."""
        self.patch(start_module, "CHANNEL", 9999)
        line = "nitroproxy-test: --worker is internal to the daemon: it has no supervisor"
        self.assertEqual(self.refused("--worker", "2"), line)

    def test_what_prevents_it(self) -> None:
        """A directory that cannot be made and a file that cannot be used are one line and status 1."""

        def no_directory(*arguments: Any) -> Any:
            raise NotADirectoryError(20, "Not a directory", "/run/x")

        self.patch(self.role, "servers", no_directory)
        self.assertRaises(Unable, self.service, self.options())

        def no_file(*arguments: Any) -> Any:
            raise Unloadable("tls.ca_file: no such file")

        self.patch(self.role, "servers", FakeRole().servers)
        self.patch(self.role, "once", no_file)
        self.assertRaises(Unable, self.service, self.options())
        self.assertEqual(
            self.said.getvalue().splitlines(),
            [
                "nitroproxy-test: transport.directory: /run/x: Not a directory",
                "nitroproxy-test: tls.ca_file: no such file",
            ],
        )
