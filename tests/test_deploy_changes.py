"""Changes that are undone."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy.changes import Changes, prune


class ChangesTests(SynchronousTestCase):
    """In a directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_order(self) -> None:
        """The last is undone first, once; one that fails keeps no other from being undone, and is reported."""
        changes, undone = Changes(), []

        def fail() -> None:
            raise OSError("broken")

        changes.did(lambda: undone.append(1))
        changes.did(fail)
        changes.did(lambda: undone.append(2))
        self.assertEqual(changes.undo(), ["broken"])
        self.assertEqual(undone, [2, 1])
        self.assertEqual(changes.undo(), [])

    def test_files(self) -> None:
        """Files come back as they were: content, mode, absence; what was not changed is not touched."""
        changed, made, removed, same = (self.directory / name for name in "abcd")
        for path in (changed, removed, same):
            path.write_text(path.name)
        changed.chmod(0o640)
        changes = Changes()
        changes.keep([changed, made, removed, same])
        before = same.stat()
        changed.write_text("other")
        made.write_text("other")
        removed.unlink()
        self.assertEqual(changes.undo(), [])
        self.assertEqual((changed.read_text(), changed.stat().st_mode & 0o777), ("a", 0o640))
        self.assertFalse(made.exists())
        self.assertEqual(removed.read_text(), "c")
        self.assertEqual(same.stat(), before)

    def test_directory(self) -> None:
        """A file comes back though its directory has gone with it."""
        path = self.directory / "x" / "file"
        path.parent.mkdir()
        path.write_text("x")
        changes = Changes()
        changes.keep([path])
        path.unlink()
        path.parent.rmdir()
        self.assertEqual(changes.undo(), [])
        self.assertEqual(path.read_text(), "x")

    def test_prune(self) -> None:
        """Empty directories go, up to one that is not, or the top."""
        (self.directory / "x/y/z").mkdir(parents=True)
        (self.directory / "x/file").touch()
        prune(self.directory / "x/y/z", self.directory)
        self.assertEqual([path.name for path in (self.directory / "x").iterdir()], ["file"])
        (self.directory / "x/file").unlink()
        prune(self.directory / "x", self.directory)
        self.assertEqual(list(self.directory.iterdir()), [])
