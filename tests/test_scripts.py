"""scripts/dev.sh with stack.sh, and scripts/vm.sh: their messages and exit statuses, and what they leave behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.ports import free_port

DEV = Path(__file__).parent.parent / "scripts" / "dev.sh"


class DevTests(SynchronousTestCase):
    """A copy of the script in a directory of its own, so that no running stack is touched."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "scripts").mkdir(parents=True)
        self.script = shutil.copy(DEV, self.root / "scripts" / "dev.sh")
        shutil.copy(DEV.with_name("stack.sh"), self.root / "scripts" / "stack.sh")

    def run_script(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", self.script, *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **environ})

    def test_help(self) -> None:
        """help names every command, and is what there is without one."""
        done = self.run_script("help")
        self.assertEqual(done.returncode, 0)
        for command in [
            "deps",
            "local",
            "pythons",
            "test",
            "clients",
            "lint",
            "bench",
            "load",
            "soak",
            "fuzz",
            "vm",
            "start",
            "stop",
            "restart",
            "status",
            "logs",
            "clean",
            "help",
        ]:
            self.assertIn(f"\n  {command} ", done.stdout)
        self.assertEqual(self.run_script().stdout, done.stdout)

    def test_unknown_command(self) -> None:
        """An unknown command is named, followed by the help, with status 2."""
        done = self.run_script("nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'nonsense'", done.stderr)
        self.assertIn("usage:", done.stderr)

    def test_old_python(self) -> None:
        """A Python that is too old, or not there, is named with the version that is needed, and nothing is made."""
        old = self.root.absolute() / "python3.9"
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
        old.chmod(0o755)
        for python, found in ((str(old), "Python 3.9.2"), ("no-such-python", "not installed")):
            done = self.run_script("deps", PYTHON=python)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"Python 3.11 or later is needed. Tried:\n  {python}: {found}\n", done.stderr)
            self.assertIn("PYTHON=/path/to/", done.stderr)
            self.assertFalse((self.root / ".venv").exists())

    def test_nothing_runs(self) -> None:
        """status says that nothing runs, with status 1; stop has nothing to do."""
        done = self.run_script("status")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.count("not running"), 3)
        self.assertEqual(self.run_script("stop").returncode, 0)

    def test_logs(self) -> None:
        """logs shows each line once: the host's log has the enclave's lines, whose own log is shown by name."""
        (self.root / ".run").mkdir()
        tail = self.root / "bin" / "tail"
        tail.parent.mkdir()
        tail.write_text('#!/bin/sh\nfor word; do echo "${word##*/}"; done\n')
        tail.chmod(0o755)
        path = f"{tail.parent.absolute()}:{os.environ['PATH']}"
        for names, files in (([], ["host-proxy.log", "upstream.log"]), (["enclave"], ["enclave.log"])):
            done = self.run_script("logs", *names, PATH=path)
            self.assertEqual([word for word in done.stdout.split() if word.endswith(".log")], files, done.stderr)

    def test_unknown_service(self) -> None:
        """logs of an unknown service names the services."""
        done = self.run_script("logs", "nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("host-proxy, enclave and upstream", done.stderr)


class StackTests(SynchronousTestCase):
    """The functions of the script, in this environment, with a directory of the test's own for pids and logs."""

    def setUp(self) -> None:
        # A short name: that of a UNIX socket has 107 bytes at most.
        self.run_directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.run_directory)

    def bash(self, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """What *code* prints, after the script's functions are defined, and its exit status."""
        prefix = f"source {DEV}; venv={sys.prefix}; run={self.run_directory}; deps() {{ :; }}\n"
        ports = {"HOST_PROXY_PORT": str(free_port()), "ENCLAVE_PROXY_PORT": str(free_port())}
        return subprocess.run(
            ["bash", "-c", prefix + code],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **ports, **environ},
            timeout=100,
        )

    def test_one_that_ends_is_named(self) -> None:
        """While one process is waited for, another that ends is named, with its status and its last words."""
        done = self.bash(
            "trap 'halt patient' EXIT; launch patient sleep 60; launch hasty sh -c 'echo the reason; exit 3'\n"
            "started=(patient hasty); wait_for patient 60 false"
        )
        self.assertEqual(done.returncode, 1)
        log = self.run_directory / "hasty.log"
        self.assertEqual(done.stderr, f"  hasty: the reason\ndev.sh: hasty ended with status 3; its log is {log}\n")

    def test_a_log_is_of_one_run(self) -> None:
        """The log holds the last run alone; that of the run before is kept beside it."""
        self.bash("for word in one two three; do launch talker echo $word; wait; done")
        self.assertEqual((self.run_directory / "talker.log").read_text(), "three\n")
        self.assertEqual((self.run_directory / "talker.log.1").read_text(), "two\n")

    def test_a_taken_port(self) -> None:
        """A port that is taken is found before anything starts: who has it, and which variable to set."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for variable in ("HOST_PROXY_PORT", "ENCLAVE_PROXY_PORT"):
                done = self.bash("cmd_start", **{variable: str(port)})
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertRegex(
                    done.stderr, f"dev.sh: port {port}: it is taken by pid {os.getpid()} .*set {variable} to"
                )
        self.assertEqual(list(self.run_directory.glob("*.log")), [])

    def test_a_bad_configuration(self) -> None:
        """What is wrong with the environment is listed before anything starts."""
        done = self.bash("cmd_start", LOG_LEVEL="loud")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Alogging.level: expected .*got 'loud' .*\ndev.sh: nothing was started: ")
        self.assertEqual(list(self.run_directory.glob("*.log")), [])

    def test_another_s_answer(self) -> None:
        """A program that answers 200 on the port is not taken for the daemon that should listen there."""
        done = self.bash(
            'trap "halt one; halt other" EXIT; port=$(free_port); launch other sleep 60\n'
            'launch one "$venv/bin/python" -m http.server --bind 127.0.0.1 "$port"\n'
            'wait_for one 30 serves one "$port" "http://127.0.0.1:$port/"\n'
            'if serves other "$port" "http://127.0.0.1:$port/" >/dev/null; then echo wrong; else echo right; fi'
        )
        self.assertEqual((done.stdout, done.returncode), ("right\n", 0), done.stderr)

    def test_a_daemon_that_cannot_listen(self) -> None:
        """A daemon that another program keeps from listening is named with the reason, and the others are stopped."""
        lock = self.run_directory / "sockets/host/5001.sock.lock"
        lock.parent.mkdir(parents=True)
        lock.symlink_to(str(os.getpid()))
        done = self.bash("cmd_start")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("host-proxy: nitroproxy-relay: cannot listen on", done.stderr)
        self.assertIn("dev.sh: host-proxy ended with status 1; its log is", done.stderr)
        self.assertEqual(list(self.run_directory.glob("*.pid")), [])

    def test_a_long_path(self) -> None:
        """Where the run's directory is too long for UNIX sockets, they are in /tmp, and stopping removes them."""
        self.run_directory /= "d" * 100
        done = self.bash(
            'mkdir -p "$run"; make_sockets_directory; mkdir "$sockets/enclave"; echo "$sockets"; stop_stack\n'
            'test ! -e "$sockets"'
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(len(done.stdout), 60)
        self.run_directory = self.run_directory.parent

    def test_a_lock(self) -> None:
        """A command waits for another one that holds the lock, says so, and goes on when that ends."""
        path, released = self.run_directory / "lock", self.run_directory / "released"
        code = f'source {DEV}; exec 9>>{path}; lock_for "is at work" 9 {path} -x; test -e {released} && echo mine'
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with subprocess.Popen(["bash", "-c", code], stdout=-1, stderr=-1, text=True) as waiting:
                assert waiting.stdout is not None and waiting.stderr is not None
                self.assertIn("waiting for another dev.sh that is at work", waiting.stderr.readline())
                released.touch()
                fcntl.flock(file, fcntl.LOCK_UN)
                self.assertEqual(waiting.stdout.read(), "mine\n")
        self.assertEqual(waiting.returncode, 0)

    def test_nothing_stays(self) -> None:
        """A temporary run leaves its logs and reports in .run, replacing those before, and no directory elsewhere."""
        root = self.run_directory / "root"
        (root / ".run/local").mkdir(parents=True)
        (root / ".run/local/old").write_text("")
        run = self.run_directory / "temporary"
        (run / "sockets").mkdir(parents=True)
        (run / "report.json").write_text("")
        done = self.bash(f"root={root}; run={run}; keep local")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(run.exists())
        self.assertEqual([path.name for path in (root / ".run/local").iterdir()], ["report.json"])


class DigestTests(SynchronousTestCase):
    """`vm.sh digest`, by which the tests in the VM are run again or not, in a repository of its own."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.write("nitroproxy/daemon.py", "one")
        self.write("README.md", "one")
        (self.root / "scripts").mkdir()
        shutil.copy(DEV.with_name("vm.sh"), self.root / "scripts" / "vm.sh")
        subprocess.run(["git", "init", "--quiet", str(self.root)], check=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def digest(self) -> str:
        command = ["bash", str(self.root / "scripts" / "vm.sh"), "digest"]
        digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        self.assertRegex(digest, r"\A[0-9a-f]{64}\n\Z")
        return digest

    def test_what_counts(self) -> None:
        """A covered file that changes, comes or goes changes the digest; other files and the record do not."""
        digests = [self.digest()]
        self.write("README.md", "two")
        self.write("tests/vm/passed", digests[0])
        self.assertEqual(self.digest(), digests[0])
        self.write("nitroproxy/daemon.py", "two")
        digests.append(self.digest())
        self.write("systemd/new.service", "")
        digests.append(self.digest())
        subprocess.run(["git", "-C", str(self.root), "add", "."], check=True)
        self.assertEqual(self.digest(), digests[-1])
        (self.root / "nitroproxy" / "daemon.py").unlink()
        digests.append(self.digest())
        self.assertEqual(len(set(digests)), 4)

    def test_same_everywhere(self) -> None:
        """It depends on names and contents only: a clone of one commit has the same."""
        git = ["git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        for words in (["add", "."], ["commit", "--quiet", "-m", "one"]):
            subprocess.run([*git, *words], check=True)
        before, clone = self.digest(), Path(self.mktemp())
        url = f"file://{self.root.absolute()}"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, str(clone)], check=True)
        self.root = clone
        self.assertEqual(self.digest(), before)
