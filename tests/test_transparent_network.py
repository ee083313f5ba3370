"""Making the network: `nitroproxy.transparent.network`. In a network namespace where there may be one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import nitroproxy.transparent.network as module
from nitroproxy.transparent.network import (
    _SETTINGS,
    _V4,
    _V6,
    RESOLV_CONF,
    NetworkError,
    _set_kernel,
    load_rules,
    set_up,
    write_resolv_conf,
)


class RuleTests(SynchronousTestCase):
    """Loading rules by programs that the test writes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.patch(module, "_SBIN", "/nonexistent")

    def program(self, name: str, script: str) -> None:
        """A program."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def load(self) -> str:
        """Load IPv4's."""
        return load_rules(_V4, 7777, {"PATH": str(self.directory)})

    def test_first_that_works(self) -> None:
        """The first program that can loads the rules; here nf_tables is not there, as in an enclave."""
        self.program("iptables-nft-restore", "echo 'Failed to initialize nft: Protocol not supported' >&2; exit 1")
        self.program("iptables-legacy-restore", f"/bin/cat >{self.directory}/rules")
        self.assertEqual(self.load(), "iptables-legacy-restore")
        rules = (self.directory / "rules").read_text()
        self.assertIn("-d 127.0.0.0/8 -j RETURN", rules)
        self.assertIn("-d 198.18.0.1 -j RETURN", rules)
        self.assertIn("--to-ports 7777\nCOMMIT\n", rules)
        self.assertIn("-d ::1/128", _V6.rules(1))

    def test_none_works(self) -> None:
        """When none can it is said of each why."""
        self.program("iptables-nft-restore", "echo 'Protocol not supported' >&2; exit 1")
        self.program("iptables-restore", "exit 3")
        message = str(self.assertRaises(NetworkError, self.load))
        for words in (
            "iptables-nft-restore: Protocol not supported",
            "iptables-legacy-restore is not in the image",
            "iptables-restore: it ended with 3",
            "enclave.proxy_port",
        ):
            self.assertIn(words, message)


class FileTests(SynchronousTestCase):
    """Files of the kernel and of the image, in a directory of the test's."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        for name in (*_SETTINGS, "net/netfilter/nf_conntrack_max"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("5\n")

    def test_kernel(self) -> None:
        """Every setting is made, and what is as it should be is not touched."""
        self.assertEqual(_set_kernel(self.root), [])
        for name, value in _SETTINGS.items():
            self.assertEqual((self.root / name).read_text(), value)
        os.chmod(self.root / "net/ipv4/tcp_tw_reuse", 0o400)
        (self.root / "net/netfilter/nf_conntrack_max").write_text("262144")
        self.assertEqual(_set_kernel(self.root), [])
        self.assertEqual((self.root / "net/netfilter/nf_conntrack_max").read_text(), "262144")

    def test_kernel_refuses(self) -> None:
        """A setting that cannot be made is named; one that only the first namespace may make is a note."""
        (self.root / "net/netfilter/nf_conntrack_max").unlink()
        [note] = _set_kernel(self.root)
        self.assertIn("nf_conntrack_max", note)
        (self.root / "net/ipv4/ip_local_port_range").unlink()
        self.assertIn("ip_local_port_range", str(self.assertRaises(NetworkError, _set_kernel, self.root)))

    def test_resolv_conf(self) -> None:
        """It is written in place, where it is missing, and where it is a link to nothing."""
        path = self.root / "resolv.conf"
        write_resolv_conf(path)
        inode = path.stat().st_ino
        path.write_text("nameserver 192.0.2.1")
        write_resolv_conf(path)
        self.assertEqual((path.read_text(), path.stat().st_ino), (RESOLV_CONF, inode))
        path.unlink()
        path.symlink_to("../run/nowhere/resolv.conf")
        write_resolv_conf(path)
        self.assertEqual((path.read_text(), path.is_symlink()), (RESOLV_CONF, False))
        self.assertRaises(NetworkError, write_resolv_conf, self.root)

    def test_other_interface(self) -> None:
        """Another interface that is up is named, and nothing is done."""
        self.patch(module, "interfaces_up", lambda: {"lo", "eth0", "docker0"})
        error = self.assertRaises(NetworkError, set_up, dns=True, environ={}, root=self.root)
        self.assertTrue(str(error).startswith("docker0, eth0 is up"))
        self.assertFalse((self.root / "etc").exists())


_IN_NAMESPACE = """
import json, os, socket, sys
from pathlib import Path
from nitroproxy.enclave.init_system import bring_loopback_up
from nitroproxy.transparent.destination import original_destination
from nitroproxy.transparent.network import interfaces_up, set_up
bring_loopback_up()
root = Path(sys.argv[1])
network = set_up(dns=True, environ=os.environ, root=root)
found = {"sockets": sorted(network.sockets), "up": sorted(interfaces_up()), "seen": []}
own = socket.create_server(("0.0.0.0", 443))
for family, address in ((2, "203.0.113.9"), (10, "2001:db8::9")):
    name = "transparent-ipv4" if family == 2 else "transparent-ipv6"
    if name not in network.sockets:
        continue
    client = socket.create_connection((address, 443), timeout=5)
    network.sockets[name].settimeout(5)
    accepted, peer = network.sockets[name].accept()
    packed, port = original_destination(accepted)
    found["seen"].append([socket.inet_ntop(family, packed), port, peer[0], client.getsockname()[0]])
for address in ("127.0.0.1", "198.18.0.1"):
    client = socket.create_connection((address, 443), timeout=5)
    found["seen"].append([address, own.accept()[1][0]])
print(json.dumps(found))
"""


class NamespaceTests(SynchronousTestCase):
    """The kernel's own doing."""

    def test_all_of_it(self) -> None:
        """Connections to any address come to the listener, which learns where they were meant to go; the application's
        own listener on the same port keeps what is its own."""
        if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("iptables", path="/usr/sbin:/sbin"):
            raise SkipTest("needs root, unshare and iptables")
        root = Path(self.mktemp()).absolute()
        (root / "etc").mkdir(parents=True)
        (root / "proc").symlink_to("/proc")
        command = ["unshare", "--net", "--mount", sys.executable, "-c", _IN_NAMESPACE, str(root)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(found["up"], ["lo"])
        self.assertLessEqual({"transparent-ipv4", "dns-udp", "dns-tcp"}, set(found["sockets"]))
        seen = [["203.0.113.9", 443, "198.18.0.1", "198.18.0.1"]]
        if "transparent-ipv6" in found["sockets"]:
            own = "fd00:6e69:7472:6f::1"
            seen.append(["2001:db8::9", 443, own, own])
        seen += [["127.0.0.1", "127.0.0.1"], ["198.18.0.1", "198.18.0.1"]]
        self.assertEqual(found["seen"], seen)
        self.assertEqual((root / "etc/resolv.conf").read_text(), RESOLV_CONF)
        self.assertIsInstance(socket.has_ipv6, bool)
