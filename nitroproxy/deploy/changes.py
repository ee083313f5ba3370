"""Changes that can be undone: what was done is taken back in the reverse order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


class Changes:
    """What has been changed so far."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def did(self, undo: Callable[[], object]) -> None:
        """Something is about to be changed, or has been; *undo* takes it back, and does nothing if there is nothing."""
        self._undo.append(undo)

    def keep(self, paths: Iterable[Path]) -> None:
        """These small files are about to be changed, made or removed."""
        kept = [(path, path.read_bytes() if path.is_file() else None, _mode(path)) for path in paths]

        def restore() -> None:
            for path, content, mode in kept:
                _restore(path, content, mode)

        self.did(restore)

    def undo(self) -> list[str]:
        """Undo all of it; returns what could not be undone, for a person."""
        problems = []
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:  # One that fails does not keep the others from being undone.
                problems.append(str(error) or type(error).__name__)
        return problems


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777 if path.is_file() else 0


def _restore(path: Path, content: bytes | None, mode: int) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.restored")
        new.write_bytes(content)
        new.chmod(mode)
        new.replace(path)


def prune(path: Path, top: Path) -> None:
    """Remove the directory *path* and those above it below *top*, as far as they are empty."""
    while path != top:
        try:
            path.rmdir()
        except OSError:
            return
        path = path.parent
