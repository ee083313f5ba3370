"""The manifests and the seccomp profile of etc/kubernetes. `scripts/dev.sh lint` validates the manifests."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.config import load

ROOT = Path(__file__).parent.parent
MANIFESTS = (ROOT / "etc/kubernetes/nitroproxy.yaml").read_text("utf-8")


def expanded(name: str) -> set[str]:
    """The system calls of one of systemd's sets."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            found |= expanded(word) if word.startswith("@") else {word}
    return found


class ManifestTests(SynchronousTestCase):
    """What one part of the manifests says of another."""

    def test_configuration(self) -> None:
        """The configuration is one that the daemons take, and the probes ask where it listens."""
        text = re.findall(r"  config.json: \|\n((?:    .*\n)+)", MANIFESTS)[0]
        path = Path(self.mktemp())
        path.write_text(text)
        settings = load.load(str(path), environ={}).settings
        self.assertIn(f"containerPort: {settings.host_proxy.health_port}", MANIFESTS)
        self.assertIn(f"containerPort: {settings.host_proxy.port}", MANIFESTS)
        self.assertIn(f'prometheus.io/port: "{settings.host_proxy.health_port}"', MANIFESTS)
        grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", MANIFESTS)[0])
        self.assertGreaterEqual(grace, settings.host_proxy.drain_delay + settings.limits.drain_timeout + 15)
        self.assertIn(f"hugepages-2Mi: {settings.enclave.memory_mb}Mi", MANIFESTS)

    def test_confined(self) -> None:
        """Every container is confined."""
        containers = (
            MANIFESTS.partition("      containers:\n")[2].partition("      volumes:\n")[0].split("        - name: ")[1:]
        )
        self.assertEqual([text.split("\n")[0] for text in containers if "image:" in text], ["host", "enclave"])
        for text in (text for text in containers if "image:" in text):
            for words in ("readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false", "drop: [ALL]", "limits:"):
                self.assertIn(words, text)
        self.assertIn("seccompProfile: {type: Localhost, localhostProfile: nitroproxy.json}", MANIFESTS)
        self.assertIn("automountServiceAccountToken: false", MANIFESTS)


class SeccompTests(SynchronousTestCase):
    """The profile."""

    def setUp(self) -> None:
        self.profile: Any = json.loads((ROOT / "etc/kubernetes/seccomp.json").read_text("utf-8"))

    def test_families(self) -> None:
        """Sockets of the families that the daemons use, AF_VSOCK among them, and no others."""
        rules = [rule for rule in self.profile["syscalls"] if "socket" in rule["names"]]
        self.assertTrue(all(rule["args"][0]["index"] == 0 and rule["args"][0]["op"] == "SCMP_CMP_EQ" for rule in rules))
        allowed = {rule["args"][0]["value"] for rule in rules}
        wanted = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 40)
        self.assertEqual(allowed, set(map(int, wanted)))

    def test_calls(self) -> None:
        """Other calls are those of the units' filter, without namespaces; the rest is refused."""
        self.assertEqual(self.profile["defaultAction"], "SCMP_ACT_ERRNO")
        names = set(self.profile["syscalls"][0]["names"])
        self.assertTrue({"execve", "epoll_wait", "connect", "accept4", "memfd_create", "clone3", "getrandom"} <= names)
        self.assertFalse(names & {"mount", "ptrace", "bpf", "setns", "unshare", "kexec_load", "init_module", "chroot"})
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        ours = expanded("@system-service") | expanded("@default")
        self.assertLessEqual(names, ours - expanded("@privileged") - expanded("@resources"))
