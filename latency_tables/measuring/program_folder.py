"""`ProgramFolder`: converted programs that several measuring processes run, each converted once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ofa.runtimes.base import Files, write_files

MAX_BYTES = 500_000_000
"""Programs beyond this total are converted by each process."""


class ProgramFolder:
    """Files of programs by key, in a folder that several processes use one after the other.

    Converting a layer takes some ten times as long as loading the result. A program keeps the random weights
    that it was converted with, on which latencies do not depend.
    """

    def __init__(self, path: Path) -> None:
        """Take the folder, which exists and holds nothing else."""
        self._path = path
        self._num_bytes: int | None = None

    def files(self, key: str) -> Files | None:
        """Return the files of a program; None if they are not there."""
        folder = self._folder(key)
        if not folder.is_dir():
            return None
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _paths_in(folder)}

    def add(self, key: str, files: Files) -> None:
        """Keep the files of a program where they find room."""
        if self._num_bytes is None:
            self._num_bytes = sum(path.stat().st_size for path in _paths_in(self._path))
        if self._num_bytes + _size(files) > MAX_BYTES:
            return
        with suppress(OSError), tempfile.TemporaryDirectory(dir=self._path) as unfinished:
            write_files(Path(unfinished) / "files", files)
            (Path(unfinished) / "files").rename(self._folder(key))
            self._num_bytes += _size(files)

    def _folder(self, key: str) -> Path:
        return self._path / hashlib.sha256(key.encode()).hexdigest()


def _paths_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _size(files: Files) -> int:
    return sum(map(len, files.values()))


@contextmanager
def shared_programs() -> Iterator[ProgramFolder]:
    """Give several processes a folder of programs, which is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield ProgramFolder(Path(folder))
