"""The contents of an installation: plugins, endpoint strings, the command."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.version import version_text
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


class PackagingTests(SynchronousTestCase):
    """The installed project."""

    def test_services(self) -> None:
        """twistd lists both daemons, and each names a module with Options and makeService."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        for name in ("nitroproxy-host", "nitroproxy-enclave"):
            self.assertTrue(callable(makers[name].makeService))
            self.assertEqual(makers[name].options.__name__, "Options")

    def test_endpoint_strings(self) -> None:
        """Every Twisted program understands vsock: strings."""
        reactor = MemoryReactorClock()
        self.assertIsInstance(serverFromString(reactor, "vsock:port=5000"), VsockServerEndpoint)
        self.assertIsInstance(serverFromString(reactor, "vsock:5000:cid=3:backlog=5"), VsockServerEndpoint)
        self.assertIsInstance(clientFromString(reactor, "vsock:cid=16:port=5000:timeout=3"), VsockClientEndpoint)

    def test_no_package_for_plugins(self) -> None:
        """twisted_plugins has no __init__.py: it would overwrite Twisted's own."""
        self.assertFalse((ROOT / "twisted_plugins" / "__init__.py").exists())

    def test_packages_are_found(self) -> None:
        """A directory of modules is a package, so that setup.cfg's search finds it."""
        modules = (ROOT / "nitroproxy").rglob("*.py")
        self.assertEqual([path for path in modules if not (path.parent / "__init__.py").is_file()], [])

    def test_data_files_exist(self) -> None:
        """setup.cfg ships existing files only."""
        parser = configparser.ConfigParser()
        parser.read(ROOT / "setup.cfg")
        for files in parser["options.data_files"].values():
            for name in files.split():
                self.assertTrue((ROOT / name).is_file(), name)

    def test_locks(self) -> None:
        """The lock of the daemons has no development tools, and the lock for development has the same versions."""
        runtime, developing = (
            dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text()))
            for name in ("requirements.lock", "requirements-dev.lock")
        )
        parser = configparser.ConfigParser()
        parser.read(ROOT / "setup.cfg")
        required, extra = (
            set(re.findall(r"(?m)^[a-z0-9-]+", parser[section][key].strip()))
            for section, key in (("options", "install_requires"), ("options.extras_require", "dev"))
        )
        self.assertLessEqual(required, set(runtime))
        self.assertLessEqual(extra, set(developing))
        self.assertEqual(extra & set(runtime), set())
        self.assertLessEqual(runtime.items(), developing.items())

    def test_every_python(self) -> None:
        """The locks are for every Python that setup.cfg allows: a package that is pinned twice is so for different
        versions. greenlet is: for 3.11 httpbin wants a release that does not build on later ones."""
        parser = configparser.ConfigParser()
        parser.read(ROOT / "setup.cfg")
        self.assertEqual(parser["options"]["python_requires"], ">=3.11")
        for name in ("requirements.lock", "requirements-dev.lock"):
            pins = re.findall(r"(?m)^([a-z0-9-]+)==(\S+) (?:; (.*) )?\\$", (ROOT / name).read_text())
            names = [pin[0] for pin in pins]
            self.assertTrue(all(marker for name, _, marker in pins if names.count(name) > 1), name)
            self.assertEqual(len({(name, marker) for name, _, marker in pins}), len(pins))
        self.assertEqual(
            [(version.split(".")[0], marker) for name, version, marker in pins if name == "greenlet"],
            [("2", "python_full_version < '3.12'"), ("3", "python_full_version >= '3.12'")],
        )

    def test_version(self) -> None:
        """The command and both plugins print nitroproxy's version, not Twisted's."""
        for command in (
            [str(BIN / "nitroproxy"), "--version"],
            [str(BIN / "twistd"), "nitroproxy-host", "--version"],
            [str(BIN / "twistd"), "nitroproxy-enclave", "--version"],
        ):
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            self.assertEqual(output, f"{version_text()}\n")
