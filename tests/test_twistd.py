"""The daemons under a real twistd: in the background, its options for the log, a place that cannot be had."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.ports import free_port

TWISTD = Path(sys.executable).with_name("twistd")
#: Seconds after which a twistd that does not end has failed.
PATIENCE = 60


class TwistdTests(SynchronousTestCase):
    """The host daemon on UNIX sockets, in a directory of its own."""

    def setUp(self) -> None:
        # A short name: that of a UNIX socket has 107 bytes at most.
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.busy = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.busy.close)

    def twistd(self, *options: str, port: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
        """What twistd said, and its status."""
        environ = {
            "PATH": os.environ["PATH"],
            "NITROPROXY_TRANSPORT_KIND": "unix",
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory / "s"),
            "HOST_PROXY_PORT": str(port or self.busy.getsockname()[1]),
            **{name: str(value) for name, value in more.items()},
        }
        command = [str(TWISTD), *options, "--pidfile=pid", "--reactor=nitroproxy", "nitroproxy-host"]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PATIENCE, cwd=self.directory, env=environ
        )

    @staticmethod
    def kill(daemon: int) -> None:
        """End what a failed test has left."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(daemon, signal.SIGKILL)

    def test_cannot_listen(self) -> None:
        """A port that is taken: one line, and status 1."""
        done = self.twistd("-n")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Anitroproxy-host: cannot listen on 127.0.0.1:\d+: Address already in use\.?\n\Z"
        )

    def test_cannot_listen_in_the_background(self) -> None:
        """The same in the background: twistd exits with 1 and does not wait forever; the whole line is in the log."""
        done = self.twistd()
        self.assertEqual(done.returncode, 1)
        self.assertIn("nitroproxy-host: cannot listen on 127.0.0.1:", done.stderr)
        self.assertRegex(
            (self.directory / "twistd.log").read_text(), r"critical nitroproxy-host: cannot listen on .*in use"
        )
        self.assertFalse((self.directory / "pid").exists())

    def test_socket_is_taken(self) -> None:
        """A UNIX socket that another daemon has, or a directory that cannot be made: one line."""
        lock = self.directory / "s/host/5001.sock.lock"
        lock.parent.mkdir(parents=True)
        lock.symlink_to(str(os.getpid()))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        done = self.twistd("-n", port=port)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Anitroproxy-relay: cannot listen on \S+/5001.sock: in use by another daemon\n\Z"
        )
        shutil.rmtree(self.directory / "s")
        (self.directory / "s").write_text("a file")
        done = self.twistd("-n", port=port)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Anitroproxy-host: transport.directory: \S+: Not a directory\n\Z")

    def test_background(self) -> None:
        """A daemon in the background logs to the file, before and after twistd forks, each line once."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        done = self.twistd("--logfile=log", port=port)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        daemon = os.pidfd_open(int((self.directory / "pid").read_text()))
        self.addCleanup(os.close, daemon)
        self.addCleanup(self.kill, daemon)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=PATIENCE) as answer:
            self.assertEqual(answer.status, 200)
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        self.assertTrue(select.select([daemon], [], [], PATIENCE)[0], "it does not end")
        text = (self.directory / "log").read_text()
        for words in ("starting up", "listening on 127.0.0.1", "SIGTERM: draining"):
            self.assertEqual(text.count(words), 1, words)

    def test_health_port(self) -> None:
        """With several processes the supervisor has the health listener, which tells of all of them."""
        port, health_port = free_port(), free_port()
        done = self.twistd(
            "--logfile=log",
            port=port,
            NITROPROXY_HOST_PROXY_PROCESSES="2",
            NITROPROXY_HOST_PROXY_HEALTH_PORT=health_port,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        daemon = os.pidfd_open(int((self.directory / "pid").read_text()))
        self.addCleanup(os.close, daemon)
        self.addCleanup(self.kill, daemon)
        # The gateway's queue takes the connection; a worker answers when it is up.
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=PATIENCE):
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{health_port}/metrics", timeout=PATIENCE) as answer:
            page = answer.read().decode()
        for worker in ("supervisor", "1", "2"):
            self.assertIn(f'nitroproxy_worker_up{{role="host",worker="{worker}"}}', page)
        self.assertIn(
            'nitroproxy_connections_limit{hop="nitroproxy-health",role="host",worker="supervisor"} 64.0', page
        )
        self.assertRegex(page, r'nitroproxy_health{layer="vsock",role="host",status="fail",worker="supervisor"} 1\.0')
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        self.assertTrue(select.select([daemon], [], [], PATIENCE)[0], "it does not end")

    def test_not_for_us(self) -> None:
        """Places for the log that are not for us are refused in one line."""
        for options, words in (
            (["-n", "--syslog"], "--syslog and --logger are not for nitroproxy"),
            (["-n", "--logger=twisted.logger.LogPublisher"], "--syslog and --logger are not for nitroproxy"),
            (["--logfile=-"], "give it -n, or --logfile FILE"),
            (["-n", "--logfile=no/such"], "--logfile no/such: No such file or directory"),
        ):
            done = self.twistd(*options)
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(words, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
