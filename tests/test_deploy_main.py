"""deploy.sh as a user has it: the acceptance of a deployment, each refusal with its message and status."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy import environment
from tests.deploying import Build, Instance, make_environment, script
from tests.images import patched
from tests.ports import free_port

ROOT = Path(__file__).parent.parent


class DeployTestCase(SynchronousTestCase):
    """An instance and a build."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.instance = Instance(self.directory)
        self.build = Build(self.directory / "artifacts", self.instance)
        self.patch(environment, "make", make_environment)
        self.addCleanup(self.instance.stop)


class RefusalTests(DeployTestCase):
    """What is wrong is found before anything is changed; each has a message and a status of its own."""

    def refused(self, status: int, *words: str, options: tuple[str, ...] = ()) -> str:
        before = self.instance.tree()
        found, _, err = self.build.deploy(self.instance, *options)
        self.assertEqual(found, status, err)
        [line] = [line for line in err.splitlines() if line.startswith("deploy.sh: ")]
        for word in words:
            self.assertIn(word, line)
        self.assertEqual(self.instance.tree(), before)
        return line

    def test_too_old(self) -> None:
        """Amazon Linux 2 has ended."""
        self.instance.write("/etc/os-release", 'PRETTY_NAME="Amazon Linux 2"\nID="amzn"\nVERSION_ID="2"\n')
        self.refused(3, "Amazon Linux 2 is too old", "Amazon Linux 2023")

    def test_no_device(self) -> None:
        """An instance without enclaves."""
        self.instance.device.unlink()
        self.refused(3, "there is no /dev/nitro_enclaves", "--enclave-options Enabled=true")

    def test_no_nitro_cli(self) -> None:
        """Without nitro-cli it is said what installs it here."""
        (self.directory / "bin" / "nitro-cli").unlink()
        self.refused(3, "there is no nitro-cli", "dnf install aws-nitro-enclaves-cli")

    def test_no_group(self) -> None:
        """The device has to be for the group of the service's user."""
        self.instance.write("/etc/group", "root:x:0:\n")
        self.refused(3, "there is no group ne")
        self.instance.write("/etc/group", f"ne:x:{os.getgid() + 1}:\n")
        self.refused(3, "is not for group ne")

    def test_no_wheels_for_this_python(self) -> None:
        """A Python for which the artifacts have no wheels is named, with what to build."""
        (self.build.directory / "wheels" / "one-1.0-py3-none-any.whl").rename(
            self.build.directory / "wheels" / "one-1.0-cp399-cp399-manylinux_2_17_x86_64.whl"
        )
        self.build.sum()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.refused(3, "no wheel of one", f"--python {version} --machine x86_64")

    def test_configuration(self) -> None:
        """A CID that is no enclave's, and any other error of the configuration."""
        self.build.configure(enclave={"cid": 3})
        self.refused(2, "enclave.cid: expected an integer 4..4294967294", "CID 3 is the parent instance")
        self.build.configure(enclave={"nonsense": 3})
        self.refused(2, "enclave.nonsense")

    def test_memory(self) -> None:
        """256 MiB are set aside and 512 wanted."""
        self.instance.allocator.write_text("---\nmemory_mib: 256\ncpu_count: 2\n")
        self.refused(4, "memory_mib: 256 is less than enclave.memory_mb, 512", "deploy.sh --allocate")

    def test_huge_pages(self) -> None:
        """What is set aside has to be free: the allocator has not been restarted, or another enclave has it."""
        self.instance.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n")
        self.instance.write("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n")
        self.refused(4, "200 MiB of huge pages are free", "systemctl restart nitro-enclaves-allocator.service")

    def test_cpus(self) -> None:
        """1 CPU where cores have two threads; 4 where 2 are set aside; 2 where none is offline."""
        self.build.configure(enclave={"cpu_count": 1})
        self.refused(4, "enclave.cpu_count: 1 is no number of whole cores, of 2 threads each; set 2")
        self.build.configure(enclave={"cpu_count": 4})
        self.refused(4, "cpu_count: 2 is less than enclave.cpu_count, 4")
        self.build.configure()
        self.instance.write("/sys/module/nitro_enclaves/parameters/ne_cpus", "\n")
        self.refused(4, "0 CPUs are set aside, and enclave.cpu_count is 2")

    def test_large_image(self) -> None:
        """An image of 200 MiB needs 800 MiB."""
        self.build.put_image(bytes(200 << 20))
        self.build.sum()
        self.refused(4, "enclave.memory_mb: 512 is less than 4 times the image's", "set at least 801")

    def test_no_image(self) -> None:
        """Without an image, and with the emulator's alone."""
        (self.build.directory / "enclave.eif").rename(self.build.directory / "enclave-emulator.eif")
        self.refused(5, "enclave.eif: no such file; enclave-emulator.eif runs in the emulator only")
        (self.build.directory / "enclave-emulator.eif").unlink()
        self.refused(5, "enclave.eif: no such file; build it")

    def test_emulator(self) -> None:
        """The emulator's image under any name."""
        self.build.put_image(boot="emulator")
        self.refused(5, "built for the emulator", "--any-kernel")

    def test_flipped_byte(self) -> None:
        """A byte of the image has changed on the way."""
        eif = self.build.directory / "enclave.eif"
        raw = bytearray(eif.read_bytes())
        raw[raw.index(b"the kernel")] ^= 1
        eif.write_bytes(raw)
        self.refused(5, "enclave.eif: ", "CRC-32")

    def test_other_image(self) -> None:
        """The image is whole, but not the one that was measured."""
        eif = self.build.directory / "enclave.eif"
        raw = eif.read_bytes()
        at = raw.index(b"the kernel")
        eif.write_bytes(patched(raw, at, b"THE KERNEL"))
        self.refused(5, "its PCR0 is", "measurements.json says")

    def test_digests(self) -> None:
        """A file that differs from its digest, is missing, or has none."""
        lock = self.build.directory / "requirements.lock"
        lock.write_text(lock.read_text() + "# more\n")
        self.refused(5, "requirements.lock: differs from its digest in SHA256SUMS")
        self.build.sum()
        (self.build.directory / "wheels" / "two-1.0-py3-none-any.whl").touch()
        self.refused(5, "wheels/two-1.0-py3-none-any.whl: has no digest")
        self.build.sum()
        (self.build.directory / "wheels" / "two-1.0-py3-none-any.whl").unlink()
        self.refused(5, "wheels/two-1.0-py3-none-any.whl: in SHA256SUMS, but No such file")

    def test_port_taken(self) -> None:
        """Another program has the gateway's port."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.build.port))
            other.listen()
            self.refused(4, f"the gateway's port {self.build.port} on 127.0.0.1 cannot be had: Address already in use")

    def test_cid_taken(self) -> None:
        """Another enclave has the CID."""
        eif = str(self.build.directory / "enclave.eif")
        self.instance.machine.run(
            "nitro-cli", "run-enclave", "--cpu-count", "2", "--memory", "64", "--eif-path", eif, "--enclave-cid", "20"
        )
        self.build.configure(enclave={"cid": 20})
        self.build.sum()
        self.refused(4, "enclave.cid: 20 is that of the enclave i-1-enc1; set 0")

    def test_usage(self) -> None:
        """Options that mean nothing alone; nothing to remove, or to go back to."""
        for options in (("--nonsense",), ("--purge",), ("--rollback", "--uninstall")):
            error = self.assertRaises(SystemExit, self.build.deploy, self.instance, *options)
            self.assertEqual(error.code, 2)
        self.refused(2, "nothing is deployed here", options=("--uninstall",))
        self.refused(2, "no version to go back to", options=("--rollback",))

    def test_dry_run(self) -> None:
        """A dry run checks everything, says what would be done, and changes nothing."""
        before = self.instance.tree()
        status, out, err = self.build.deploy(self.instance, "--dry-run")
        self.assertEqual((status, err), (0, ""))
        for line in ("would make /opt/nitroproxy-0.1.0", "would install /var/lib/nitroproxy/enclave.eif", "dry run:"):
            self.assertIn(line, out)
        self.assertEqual(self.instance.tree(), before)
        asked = [call.split()[1] for call in self.instance.calls]
        self.assertLessEqual(set(asked), {"is-active", "is-enabled"})

    def test_allocate(self) -> None:
        """--allocate edits the allocator's file, not while an enclave runs; what the allocator refuses is undone."""
        self.instance.allocator.write_text("---\n# ours\nmemory_mib: 256\ncpu_count: 2\n")
        self.instance.systemd.mkdir(exist_ok=True)
        (self.instance.systemd / "fail").write_text("restart nitro-enclaves-allocator.service\n")
        status, out, err = self.build.deploy(self.instance, "--allocate")
        self.assertEqual(status, 4, err)
        self.assertIn("the new values were not accepted", err)
        self.assertIn("undoing what was changed", out)
        self.assertIn("memory_mib: 256", self.instance.allocator.read_text())
        self.assertFalse((self.instance.root / "opt/nitroproxy-0.1.0").exists())
        eif = str(self.build.directory / "enclave.eif")
        self.instance.machine.run(
            "nitro-cli", "run-enclave", "--cpu-count", "2", "--memory", "64", "--eif-path", eif, "--enclave-cid", "20"
        )
        self.refused(4, "--allocate", "cannot be restarted while i-1-enc", options=("--allocate",))


class LifeTests(DeployTestCase):
    """From the first deployment to the last trace."""

    def served(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.build.port}/health/ready", timeout=20) as answer:
            return bool(answer.status == 200)

    def deploy(self, build: Build, *options: str) -> str:
        status, out, err = build.deploy(self.instance, *options)
        journal = "".join(path.read_text() for path in self.instance.systemd.glob("*.log"))
        self.assertEqual((status, err), (0, ""), out + journal)
        return out

    def test_life(self) -> None:
        """Deploy; again; upgrade, with an edited configuration; back; uninstall."""
        self.instance.boot()
        empty = self.instance.tree()
        out = self.deploy(self.build)
        self.assertRegex(out, r"(?m)^ +ok +enclave\b")
        self.assertTrue(self.served())
        self.assertIn("enclave.json", os.listdir(self.instance.root / "run/nitroproxy"))

        deployed = self.instance.tree()
        calls = len(self.instance.calls)
        self.assertIn("\nunchanged\n", self.deploy(self.build))
        self.assertEqual(self.instance.tree(), deployed)
        self.assertFalse([call for call in self.instance.calls[calls:] if "start" in call.split()[1]])

        config = self.instance.root / "etc/nitroproxy/config.json"
        mine = f"// mine\n{config.read_text()}"
        config.write_text(mine)
        newer = Build(self.directory / "newer", self.instance, "0.2.0", "newer", self.build.port)
        out = self.deploy(newer)
        self.assertIn("PCR0 changes from", out)
        self.assertEqual(config.read_text(), mine)
        self.assertEqual(os.readlink(self.instance.root / "opt/nitroproxy"), "nitroproxy-0.2.0")
        self.assertTrue(self.served())
        self.assertEqual(
            (self.instance.root / "var/lib/nitroproxy/enclave.eif").read_bytes(),
            (newer.directory / "enclave.eif").read_bytes(),
        )

        out = self.deploy(newer, "--rollback")
        self.assertIn("back from 0.2.0 to 0.1.0", out)
        self.assertEqual(os.readlink(self.instance.root / "opt/nitroproxy"), "nitroproxy-0.1.0")
        self.assertEqual(
            (self.instance.root / "var/lib/nitroproxy/enclave.eif").read_bytes(),
            (self.build.directory / "enclave.eif").read_bytes(),
        )
        self.assertTrue(self.served())

        out = self.deploy(newer, "--uninstall", "--dry-run")
        self.assertIn("would remove /opt/nitroproxy-0.2.0", out)
        self.deploy(newer, "--uninstall")
        self.assertEqual(self.instance.nitro_cli.enclaves, [])
        left = self.instance.tree()
        self.assertEqual(left.pop("etc/nitroproxy/config.json").split()[0], "100644")
        self.assertEqual(left, empty)

    def test_any_kernel(self) -> None:
        """--any-kernel reaches run-enclave; an upgrade to an image of Nitro ends it, and going back brings it back."""
        self.instance.boot()
        empty = self.instance.tree()
        self.build.put_image(boot="emulator")
        self.build.sum()
        drop_in = self.instance.root / "etc/systemd/system/nitroproxy-eif.service.d/any-kernel.conf"
        self.deploy(self.build, "--any-kernel")
        self.assertTrue(drop_in.exists())
        newer = Build(self.directory / "newer", self.instance, "0.2.0", "newer", self.build.port)
        self.deploy(newer)
        self.assertFalse(drop_in.parent.exists())
        self.deploy(newer, "--rollback")
        self.assertTrue(drop_in.exists())
        self.deploy(newer, "--uninstall")
        self.assertEqual(self.instance.tree(), empty)

    def test_purge(self) -> None:
        """Purged, nothing is left; without an edit nothing is left in any case."""
        self.instance.boot()
        empty = self.instance.tree()
        self.deploy(self.build)
        config = self.instance.root / "etc/nitroproxy/config.json"
        config.write_text(f"// mine\n{config.read_text()}")
        self.deploy(self.build, "--uninstall", "--purge")
        self.assertEqual(self.instance.tree(), empty)
        self.assertEqual([path for path in self.instance.root.rglob("*") if "nitroproxy" in path.name], [])

    def test_credentials(self) -> None:
        """The credentials daemon runs as long as a role is configured, is restarted with the host's, and is undone."""
        unit = "nitroproxy-credentials.service"

        def runs() -> bool:
            return self.instance.machine.succeeds("systemctl", "is-active", "--quiet", unit)

        def calls() -> list[str]:
            return [call.split()[1] for call in self.instance.calls if call.endswith(f" {unit}")]

        self.instance.boot()
        self.deploy(self.build)
        self.assertFalse(runs())
        listener = {"proxy_port": free_port()}
        socket_place = str(self.instance.root / "run/nitroproxy/credentials.sock")
        with_role: dict[str, Any] = {"role": "r", "socket": socket_place, "metadata_url": "http://127.0.0.1:1"}
        self.build.configure(credentials=with_role, enclave=listener)
        self.build.sum()
        self.deploy(self.build)
        self.assertTrue(runs())
        done = len(calls())
        self.deploy(self.build)
        self.assertFalse({"start", "restart", "stop"} & set(calls()[done:]))
        self.build.configure(credentials=with_role, enclave=listener, limits={"connections": 99})
        self.build.sum()
        self.deploy(self.build)
        self.assertIn("restart", calls()[done:])
        (self.instance.systemd / "fail").write_text("restart nitroproxy-host.service\n")
        self.build.configure(limits={"connections": 98})
        self.build.sum()
        self.assertEqual(self.build.deploy(self.instance)[0], 6)
        (self.instance.systemd / "fail").unlink()
        self.assertTrue(runs(), "what was undone runs as before")
        self.deploy(self.build)
        self.assertFalse(runs())
        self.assertFalse(self.instance.machine.succeeds("systemctl", "is-enabled", "--quiet", unit))

    def test_enclave_dies(self) -> None:
        """An enclave that dies at boot: the failing unit, its journal, status 6, and nothing is left."""
        self.instance.boot("false")
        empty = self.instance.tree()
        status, out, err = self.build.deploy(self.instance)
        self.assertEqual(status, 6)
        self.assertIn("deploy.sh: systemctl start nitroproxy-eif.service failed", err)
        self.assertIn("  the end of the journal of nitroproxy-eif.service:\n", err)
        self.assertIn("the enclave i-1-enc", err)
        self.assertIn("undoing what was changed", out)
        self.assertEqual(self.instance.tree(), empty)
        self.assertFalse(self.instance.machine.succeeds("systemctl", "is-active", "nitroproxy-host.socket"))

    def test_never_ready(self) -> None:
        """An enclave that runs and serves nothing: the layer that fails; after an upgrade the old one runs again."""
        self.instance.boot()
        self.deploy(self.build)
        deployed = self.instance.tree()
        newer = Build(self.directory / "newer", self.instance, "0.2.0", "newer", self.build.port)
        good = json.loads((self.instance.nitro_cli.state / "behaviour.json").read_text())["boot"]
        # The old image starts the daemon again, the new one sleeps.
        eif = self.instance.root / "var/lib/nitroproxy/enclave.eif"
        boot = self.directory / "boot"
        script(boot, f"cmp -s {eif} {newer.directory}/enclave.eif && exec sleep 1000\nexec {' '.join(good)}")
        self.instance.boot(str(boot))
        status, out, err = newer.deploy(self.instance, "--timeout", "1")
        self.assertEqual(status, 6)
        self.assertIn("deploy.sh: not ready after 1 seconds: vsock fails: cannot reach the enclave at", err)
        self.assertNotIn("not undone", out)
        self.assertIn("the version before is ready again", out)
        kept = {name: value.split()[-1] for name, value in self.instance.tree().items()}
        self.assertEqual(kept, {name: value.split()[-1] for name, value in deployed.items()})
        self.assertIn("\nunchanged\n", self.deploy(self.build))


class ScriptTests(SynchronousTestCase):
    """scripts/deploy.sh: it needs a Python and the artifacts, before anything of nitroproxy runs."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.script = Path(shutil.copy(ROOT / "scripts" / "deploy.sh", self.directory))

    def run_it(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.script), *options],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], **environ},
        )

    def test_no_artifacts(self) -> None:
        """Alone it cannot do anything; with artifacts beside it, as scp -r build/ leaves them, it takes the newest."""
        done = self.run_it()
        self.assertEqual(done.returncode, 5)
        self.assertIn("has no artifacts", done.stderr)
        for version in ("0.9.0", "0.10.0"):
            (self.directory / f"nitroproxy-{version}" / "wheels").mkdir(parents=True)
        done = self.run_it(PYTHON=sys.executable)
        self.assertEqual(done.returncode, 5)
        self.assertIn("nitroproxy-0.10.0/wheels has no wheel of nitroproxy", done.stderr)

    def test_help_in_a_checkout(self) -> None:
        """In a checkout, where no artifacts have been made, it still says what it can do."""
        self.script = ROOT / "scripts" / "deploy.sh"
        done = self.run_it("--help", PYTHON=sys.executable)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--rollback", done.stdout)

    def test_old_python(self) -> None:
        """With Python 3.9 alone it says which is needed, and how to get it."""
        (self.directory / "wheels").mkdir()
        old = self.directory / "python3.9"
        script(old, '[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1')
        done = self.run_it(PYTHON=str(old))
        self.assertEqual(done.returncode, 3)
        self.assertIn("Python 3.11 or later is needed, and ", done.stderr)
        self.assertIn("is Python 3.9.2:\ndnf install python3.11", done.stderr)

    def test_damaged_wheel(self) -> None:
        """nitroproxy's own wheel is compared with its digest before it is run."""
        (self.directory / "wheels").mkdir()
        (self.directory / "wheels" / "nitroproxy-0.1.0-py3-none-any.whl").write_bytes(b"x")
        (self.directory / "SHA256SUMS").write_text(f"{'0' * 64}  wheels/nitroproxy-0.1.0-py3-none-any.whl\n")
        done = self.run_it(PYTHON=sys.executable)
        self.assertEqual(done.returncode, 5)
        self.assertIn("differs from its digest", done.stderr)

    def test_bare_python(self) -> None:
        """The checks start with nothing but the standard library."""
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import nitroproxy.deploy.main; print('ok')"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("ok\n", ""))
