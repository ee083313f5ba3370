"""The units, by systemd's own judgement (S20)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.commands.install_units import install_units
from nitroproxy.config.ends import Transport
from nitroproxy.config.schema import Credentials
from nitroproxy.config.traffic import Limits
from nitroproxy.daemon.enclave_record import NAME

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "systemd").glob("*.service"))
#: systemd's exposure level, 0 to 10; systemd calls less than 2 OK.
MOST_EXPOSED = 1.3


class UnitTests(SynchronousTestCase):
    """Each unit as it is installed."""

    def setUp(self) -> None:
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("there is no systemd-analyze here; `scripts/dev.sh lint` installs it")
        root = Path(self.mktemp()).absolute()
        list(install_units(ROOT, root, Path(sys.executable).parent.parent))
        self.units = sorted((root / "etc/systemd/system").glob("nitroproxy*"))
        self.assertEqual(len(self.units), len(UNITS) + 2)

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *arguments], check=False, capture_output=True, text=True)

    def test_verify(self) -> None:
        """systemd understands every line."""
        done = self.analyze("verify", "--man=no", *map(str, self.units))
        ours = [line for line in done.stderr.splitlines() if "nitroproxy" in line]
        self.assertEqual((ours, done.returncode), ([], 0))

    def test_exposure(self) -> None:
        """The sandbox is as tight as it may be."""
        for unit in self.units:
            if unit.suffix == ".service":
                done = self.analyze("security", "--offline=true", str(unit))
                match = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
                assert match is not None, done.stderr
                self.assertLessEqual(float(match[1]), MOST_EXPOSED, unit.name)

    def test_never_given_up(self) -> None:
        """systemd starts a service again however often it fails, after a pause: no start limit fails it for good."""
        for unit in UNITS:
            self.assertRegex(unit.read_text(), r"(?m)^StartLimitIntervalSec=0$", unit.name)
            self.assertRegex(unit.read_text(), r"(?m)^RestartSec=(2|10)$", unit.name)

    def test_stop(self) -> None:
        """Stopping signals the daemon's first process alone: a worker that was ended by systemd while it started would
        be a failed start, and the stop would end as failed (K6)."""
        for role in ("host", "enclave"):
            unit = (ROOT / f"systemd/nitroproxy-{role}.service").read_text()
            self.assertRegex(unit, r"(?m)^KillMode=mixed$")
            self.assertRegex(unit, r"(?m)^NotifyAccess=main$")

    def test_users(self) -> None:
        """systemd-sysusers makes every user that a unit runs as; it skips a line that it does not like."""
        wanted = {match for unit in UNITS for match in re.findall(r"(?m)^User=(.+)$", unit.read_text())}
        if shutil.which("systemd-sysusers") is None:
            raise SkipTest("there is no systemd-sysusers here")
        root = Path(self.mktemp()).absolute()
        (root / "etc").mkdir(parents=True)
        command = ["systemd-sysusers", f"--root={root}", str(ROOT / "systemd" / "nitroproxy.sysusers")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        made = {line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()}
        self.assertLessEqual(wanted, made, done.stderr)
        self.assertNotIn("not a valid", done.stderr)

    def test_enclave_record(self) -> None:
        """The record of the running enclave is where the configuration's default has it, outlives a restart of the unit
        as a directory, and never outlives the process that wrote it."""
        unit = (ROOT / "systemd/nitroproxy-eif.service").read_text()
        path = Path(Transport().directory) / NAME
        for line in (
            f"ExecStopPost=/bin/rm -f {path}",
            f"RuntimeDirectory={path.parent.name}",
            "RuntimeDirectoryMode=0755",
            "RuntimeDirectoryPreserve=yes",
        ):
            self.assertIn(line, unit.splitlines())
        self.assertEqual(path.parent.parent, Path("/run"))

    def test_descriptors(self) -> None:
        """The limit on descriptors, which the daemon cannot raise there, fits the default of limits.connections."""
        for role in ("host", "enclave"):
            unit = (ROOT / f"systemd/nitroproxy-{role}.service").read_text()
            match = re.search(r"(?m)^LimitNOFILE=(\d+)$", unit)
            assert match is not None, role
            self.assertGreaterEqual(int(match[1]), 2 * Limits().connections + 64)

    def test_documentation(self) -> None:
        """`systemctl status` points to the operations guide, which is there."""
        for unit in self.units:
            match = re.search(r"(?m)^Documentation=file:(\S+)", unit.read_text())
            assert match is not None, unit.name
            self.assertTrue(Path(match[1]).is_file(), match[1])

    def test_what_breaks_the_daemons(self) -> None:
        """AF_VSOCK is allowed where it is needed, and what breaks pyOpenSSL's callbacks is not asked for."""
        for unit in UNITS:
            text = unit.read_text()
            if unit.name != "nitroproxy-credentials.service":
                self.assertRegex(text, r"(?m)^RestrictAddressFamilies=.*\bAF_VSOCK\b", unit.name)
            self.assertNotRegex(text, r"(?m)^MemoryDenyWriteExecute=", unit.name)

    def test_metadata_service(self) -> None:
        """One unit can reach the metadata service, and nothing else; those that take bytes from elsewhere cannot."""
        addresses = "169.254.169.254 fd00:ec2::254"
        self.assertEqual(Credentials().metadata_url, f"http://{addresses.split()[0]}")
        for unit in UNITS:
            allowed, denied = (
                re.findall(rf"(?m)^IPAddress{what}=(.*)$", unit.read_text()) for what in ("Allow", "Deny")
            )
            if unit.name == "nitroproxy-credentials.service":
                self.assertEqual((allowed, denied), ([addresses], ["any"]))
                self.assertNotRegex(unit.read_text(), r"(?m)^RestrictAddressFamilies=.*VSOCK")
            else:
                self.assertEqual(allowed, [], unit.name)
                self.assertIn(denied, ([addresses], ["any"]), unit.name)

    def test_credentials_socket(self) -> None:
        """The socket is where the configuration says, in a directory for one group, in which the host daemon is."""
        unit = (ROOT / "systemd/nitroproxy-credentials.service").read_text()
        directory = Path(Credentials().socket).parent
        self.assertEqual(directory.parent, Path("/run"))
        for line in (f"RuntimeDirectory={directory.name}", "RuntimeDirectoryMode=0750", "User=nitroproxy-credentials"):
            self.assertRegex(unit, rf"(?m)^{re.escape(line)}$")
        group = re.search(r"(?m)^Group=(.*)$", unit)
        assert group is not None
        host = (ROOT / "systemd/nitroproxy-host.service").read_text()
        self.assertRegex(host, rf"(?m)^SupplementaryGroups={group[1]}$")
        self.assertRegex((ROOT / "systemd/nitroproxy.sysusers").read_text(), rf"(?m)^u {group[1]} - ")

    def test_same_sandbox(self) -> None:
        """The two daemons' units differ in nothing but their names, and the group of the credentials' socket."""
        host, enclave = ((ROOT / f"systemd/nitroproxy-{role}.service").read_text() for role in ("host", "enclave"))
        lines = "# The socket of nitroproxy-credentials.service.\nSupplementaryGroups=nitroproxy-credentials\n"
        self.assertIn(lines, host)
        host = host.replace(lines, "")
        host = host.replace("nitroproxy-host", "X").replace("gateway and egress relay on the host", "Y")
        self.assertEqual(host, enclave.replace("nitroproxy-enclave", "X").replace("proxy in the enclave", "Y"))
