"""Units, configuration and system user put in place."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path

import twisted.plugin
import twisted.plugins
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.install_units import (
    CONFIG,
    InstallError,
    install_units,
    installed_files,
    is_edited,
    remove_units,
    source_directory,
)
from nitroproxy.commands.main import main

SOURCE = Path(__file__).parent.parent


class InstallTests(SynchronousTestCase):
    """Into a directory that stands for /."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())

    def install(self, source: Path = SOURCE, prefix: str = "/usr/local/np") -> dict[str, str]:
        placed = install_units(source, self.root, Path(prefix))
        return {str(one.path.relative_to(self.root)): one.outcome for one in placed}

    def test_first_time(self) -> None:
        """Everything is put in place, and the units name the programs that are installed."""
        outcomes = self.install()
        self.assertEqual(set(outcomes.values()), {"new"})
        unit = (self.root / "etc/systemd/system/nitroproxy-host.service").read_text()
        self.assertIn("ExecStart=/usr/local/np/bin/twistd -n", unit)
        self.assertNotIn("/opt/nitroproxy", unit)
        self.assertEqual(
            (self.root / "etc/nitroproxy/config.json").read_bytes(), (SOURCE / "etc/config.json").read_bytes()
        )
        self.assertIn("etc/sysusers.d/nitroproxy.conf", outcomes)
        self.assertEqual(set(self.install().values()), {"unchanged"})

    def test_upgrade(self) -> None:
        """A file that was not edited is updated; an edited one is left alone, with the new one beside it."""
        self.install()
        edited = self.root / "etc/nitroproxy/config.json"
        edited.write_text("// mine\n{}")
        unit = "etc/systemd/system/nitroproxy-host.service"
        outcomes = self.install(prefix="/elsewhere")
        self.assertEqual(outcomes[unit], "updated")
        self.assertEqual(outcomes["etc/nitroproxy/config.json"], "edited")
        self.assertEqual(edited.read_text(), "// mine\n{}")
        self.assertEqual(edited.with_name("config.json.new").read_bytes(), (SOURCE / "etc/config.json").read_bytes())
        self.assertIn("/elsewhere/bin/twistd", (self.root / unit).read_text())
        self.assertEqual(self.install(prefix="/elsewhere")["etc/nitroproxy/config.json"], "edited", "and stays so")

    def test_not_ours(self) -> None:
        """A file from before the first installation counts as edited."""
        path = self.root / "etc/nitroproxy/nitroproxy.env"
        path.parent.mkdir(parents=True)
        path.write_text("LOG_LEVEL=DEBUG\n")
        self.assertEqual(self.install()["etc/nitroproxy/nitroproxy.env"], "edited")
        self.assertEqual(path.read_text(), "LOG_LEVEL=DEBUG\n")

    def test_configuration(self) -> None:
        """Another configuration than the distributed one can be installed; it is ours and not an edited one."""
        own = Path(self.mktemp())
        own.write_text("{}")
        for content, outcome in (("{}", "new"), ("{}", "unchanged"), ("// 2\n{}", "updated")):
            own.write_text(content)
            placed = {one.path: one.outcome for one in install_units(SOURCE, self.root, Path("/x"), own)}
            self.assertEqual(placed[self.root / CONFIG], outcome)
            self.assertEqual((self.root / CONFIG).read_text(), content)
            self.assertFalse(is_edited(self.root, CONFIG))
        (self.root / CONFIG).write_text("{ }")
        self.assertTrue(is_edited(self.root, CONFIG))

    def test_remove(self) -> None:
        """What was put in place is removed, with the directories that are ours; an edited file stays unless purged."""
        for purge, left in ((False, [CONFIG]), (True, [])):
            self.install()
            (self.root / CONFIG).write_text("// mine")
            self.install()
            self.assertTrue((self.root / f"{CONFIG}.new").exists())
            removed = {
                str(one.path.relative_to(self.root)): one.outcome for one in remove_units(self.root, purge=purge)
            }
            self.assertEqual(removed.pop(CONFIG), "removed" if purge else "edited")
            self.assertEqual(set(removed.values()), {"removed"})
            files = [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]
            self.assertEqual(files, left)
        self.assertFalse((self.root / "etc/nitroproxy").exists())
        self.assertFalse((self.root / "var/lib/nitroproxy").exists())
        self.assertTrue((self.root / "etc/systemd/system").exists())
        self.assertEqual(list(remove_units(self.root, purge=True)), [])

    def test_installed_files(self) -> None:
        """The files that may be written are known beforehand."""
        self.install()
        (self.root / CONFIG).write_text("// mine")
        self.install()
        found = {path for path in self.root.rglob("*") if path.is_file()}
        self.assertLessEqual(found, set(installed_files(self.root)))

    def test_modes(self) -> None:
        """With any umask, the services' users can read the configuration; the environment is root's alone."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.install()
        modes = {str(path.relative_to(self.root)): path.stat().st_mode & 0o777 for path in self.root.rglob("*")}
        self.assertEqual(modes.pop("etc/nitroproxy/nitroproxy.env"), 0o640)
        for name, mode in modes.items():
            self.assertEqual(mode, 0o755 if (self.root / name).is_dir() else 0o644, name)

    def test_interrupted(self) -> None:
        """An installation that breaks off leaves no half a file, and the next one knows what it had put in place."""
        unit = next(iter(install_units(SOURCE, self.root, Path("/one")))).path
        self.assertEqual([path.name for path in unit.parent.iterdir()], [unit.name])
        outcomes = self.install(prefix="/two")
        self.assertEqual(outcomes[str(unit.relative_to(self.root))], "updated")

    def test_manifest(self) -> None:
        """A damaged manifest is reported in one line, and nothing is written."""
        manifest = self.root / "var/lib/nitroproxy/installed.json"
        manifest.parent.mkdir(parents=True)
        for content in (b"[]", b"{", b"\xff"):
            manifest.write_bytes(content)
            message = str(self.assertRaises(InstallError, self.install))
            self.assertIn("installed.json: is damaged", message)
            self.assertEqual(len(message.splitlines()), 1)
        self.assertFalse((self.root / "etc").exists())

    def test_errors(self) -> None:
        """What cannot be read or written is named, and nothing has been written when a source is missing."""
        self.assertIn(
            "nitroproxy-host.service", str(self.assertRaises(InstallError, self.install, Path(self.mktemp())))
        )
        self.assertFalse(self.root.exists())
        self.root.mkdir()
        (self.root / "etc").write_text("a file")
        self.assertIn("etc", str(self.assertRaises(InstallError, self.install)))

    def test_plugin_cache(self) -> None:
        """The command has Twisted write its list of plugins, which a daemon on a read-only root cannot."""
        cached: list[object] = []
        self.patch(twisted.plugin, "getCache", cached.append)
        out = StringIO()
        self.patch(sys, "stdout", out)
        self.assertEqual(main(["install-units", "--root", str(self.root)]), 0)
        self.assertEqual(cached, [twisted.plugins])
        self.assertIn("new        ", out.getvalue())
        self.assertIn("next: systemd-sysusers", out.getvalue())

    def test_remove_command(self) -> None:
        """The command removes, and takes --purge for that only."""
        self.install()
        out, err = StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        self.assertEqual(main(["install-units", "--root", str(self.root), "--purge"]), 1)
        self.assertEqual(err.getvalue(), "nitroproxy: --purge is for --remove\n")
        self.assertEqual(main(["install-units", "--root", str(self.root), "--remove"]), 0)
        self.assertIn(f"removed    {self.root / CONFIG}\n", out.getvalue())

    def test_cannot_install(self) -> None:
        """The command names the file that it could not write, with status 1."""
        self.root.write_text("a file")
        err = StringIO()
        self.patch(sys, "stderr", err)
        self.assertEqual(main(["install-units", "--root", str(self.root)]), 1)
        self.assertRegex(err.getvalue(), r"\Anitroproxy: \S+: Not a directory\n\Z")

    def test_source(self) -> None:
        """The source tree is found when there is no installation."""
        self.assertTrue((source_directory() / "systemd/nitroproxy-host.service").exists())
