"""An instance below a root of its own, and artifacts, for the tests of `nitroproxy.deploy`.

systemctl, journalctl, systemd-sysusers and nitro-cli are the stand-ins of `tests/fakes`; the daemons that they start
are real, with UNIX sockets in the place of vsock. The environment that a deployment makes is played by this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nitroproxy.deploy.machine import Machine
from nitroproxy.deploy.main import main
from nitroproxy.image.layout import Kind
from nitroproxy.image.reader import read_image
from tests.images import PARTS, image
from tests.nitrocli import FakeNitroCLI
from tests.ports import free_port

FAKES = Path(__file__).parent / "fakes"
_COMMAND = "import sys; from nitroproxy.commands.main import main; sys.exit(main())"


class Instance:
    """A parent instance, on which everything is as it should be.

    :param directory: of its own, with a short name: UNIX sockets are in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.systemd = directory / "systemd"
        self.nitro_cli = FakeNitroCLI(directory)
        programs = directory / "bin"
        programs.mkdir()
        (programs / "nitro-cli").symlink_to(self.nitro_cli.program)
        for name in ("systemctl", "journalctl", "systemd-sysusers"):
            script(
                programs / name,
                f"export FAKE_SYSTEMD_STATE={shlex.quote(str(self.systemd))}\n"
                f"export FAKE_SYSTEMD_ROOT={shlex.quote(str(self.root))}\n"
                f'exec {shlex.quote(sys.executable)} {shlex.quote(str(FAKES / name))} "$@"',
            )
        self.write("/etc/os-release", 'PRETTY_NAME="Amazon Linux 2023"\nID="amzn"\nVERSION_ID="2023"\n')
        self.write("/etc/group", f"root:x:0:\nne:x:{os.getgid()}:\n")
        self.device = self.write("/dev/nitro_enclaves", "")
        self.device.chmod(0o660)
        self.write("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n")
        pool = "---\n# ours\nmemory_mib: 512\ncpu_count: 2\n"
        self.allocator = self.write("/etc/nitro_enclaves/allocator.yaml", pool)
        (self.root / "opt").mkdir()
        self.machine = Machine(self.root, {"PATH": f"{programs}:/usr/bin:/bin"})
        self.machine.architecture = "x86_64"

    def write(self, place: str, text: str) -> Path:
        """Write a file below the root."""
        path = self.root / place.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def boot(self, *command: str) -> None:
        """From now on *command* is what an enclave does; without one, it is the enclave daemon."""
        config = self.root / "etc/nitroproxy/config.json"
        twistd = str(Path(sys.executable).parent / "twistd")
        daemon = [twistd, "-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-enclave", "--config", str(config)]
        self.nitro_cli.behave(boot=list(command) or daemon)

    @property
    def calls(self) -> list[str]:
        """What systemctl and its like were asked for."""
        path = self.systemd / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def tree(self) -> dict[str, str]:
        """Every file below the root, but for what the running daemons keep."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                found[str(path.relative_to(self.root))] = f"-> {path.readlink()}"
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path.relative_to(self.root))] = f"{path.stat().st_mode:o} {path.stat().st_mtime_ns} {content}"
        return {name: value for name, value in found.items() if not name.startswith("run/")}

    def stop(self) -> None:
        """End everything that was started."""
        for unit in ("eif.service", "credentials.service", "host.service", "host.socket"):
            self.machine.succeeds("systemctl", "stop", f"nitroproxy-{unit}")
        self.machine.succeeds("nitro-cli", "terminate-enclave", "--all")


class Build:
    """What ``scripts/build.sh artifacts`` has made, with an image of nothing and wheels of nothing.

    :param directory: to make.
    :param content: makes this build another one.
    :ivar port: of the gateway.
    """

    def __init__(
        self, directory: Path, instance: Instance, version: str = "0.1.0", content: str = "", port: int = 0
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        (directory / "wheels").mkdir(parents=True)
        (directory / "etc").mkdir()
        wheel(directory / "wheels" / f"nitroproxy-{version}-py3-none-any.whl", {"nitroproxy/x.py": f"# {content}\n"})
        wheel(directory / "wheels" / "one-1.0-py3-none-any.whl", {"one.py": ""})
        (directory / "requirements.lock").write_text("one==1.0 \\\n    --hash=sha256:00\n")
        self.settings: dict[str, dict[str, Any]] = {
            "transport": {"kind": "unix", "directory": str(instance.root / "run/nitroproxy")},
            "enclave": {"proxy_port": 0, "cid": 0},
            "host_proxy": {"port": self.port},
        }
        self.configure()
        self.put_image(content.encode())
        self.sum()

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write the configuration, with more in it."""
        names = {*self.settings, *sections}
        settings = {name: {**self.settings.get(name, {}), **sections.get(name, {})} for name in names}
        (self.directory / "etc" / "config.json").write_text(json.dumps(settings, sort_keys=True))

    def put_image(self, content: bytes = b"", boot: str = "nitro", root_bytes: int = 1 << 20) -> None:
        """Write an image and its measurements."""
        metadata = json.dumps({"CustomMetadata": {"nitroproxy": {"boot": boot, "root_bytes": root_bytes}}}).encode()
        eif = self.directory / "enclave.eif"
        eif.write_bytes(image([*PARTS[:2], (Kind.METADATA, metadata), *PARTS[3:], (Kind.RAMDISK, content)]))
        measured = read_image(eif).measurements.to_dict()
        (self.directory / "measurements.json").write_text(json.dumps({"Measurements": measured}))

    def sum(self) -> None:
        """Write the digests."""
        paths = sorted(path for path in self.directory.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
        digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        lines = [f"{digest}  {path.relative_to(self.directory)}\n" for path, digest in digests.items()]
        (self.directory / "SHA256SUMS").write_text("".join(lines))

    def deploy(self, instance: Instance, *options: str) -> tuple[int, str, str]:
        """Run deploy.sh's main function; its status, output and error output."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["--artifacts", str(self.directory), *options], instance.machine, isolated=False)
        return int(status), out.getvalue(), err.getvalue()


def make_environment(
    machine: Machine, directory: str, wheels: Sequence[Path], digest: str, *, compiled: bool = True
) -> None:
    """In the place of `nitroproxy.deploy.environment.make`: programs that are this environment's."""
    path = machine.path(directory)
    (path / "bin").mkdir(parents=True)
    script(path / "bin" / "nitroproxy", f'exec {shlex.quote(sys.executable)} -c {shlex.quote(_COMMAND)} "$@"')
    script(path / "bin" / "twistd", f'exec {shlex.quote(str(Path(sys.executable).parent / "twistd"))} "$@"')
    (path / ".nitroproxy").write_text(digest)


def wheel(path: Path, members: dict[str, str]) -> None:
    """Write a wheel; the same members give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def script(path: Path, text: str) -> None:
    """Write a shell script that can be started."""
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
