"""Files and folders that are being written: under hidden names, and removed when their writer was killed.

A writer holds the lock (`flock`) of what it writes; it ends with the process, however that ends. By it every
later writer in the folder tells what nobody will finish from what another process is writing, on any host
that shares the file system and its locks. Without such locks, what was not touched for a day is left over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ofa.common.exchange import exchange

# Unmistakable: what is written may be in a folder with files of other programs, such as `.bashrc.old`.
_UNFINISHED_NAME = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_MOVED_NAME = re.compile(r"\.(.+)\.[0-9a-f]{16}\.old")

_LEFT_OVER_AGE_S = 86_400.0
_MAX_ATTEMPTS = 20


@contextlib.contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """Yield a new empty file with a hidden name beside `path`, to be renamed; it is removed if it was not.

    Raises:
        OSError: if it cannot be made.
    """
    with _unfinished(path, lambda temporary: temporary.touch(exist_ok=False)) as temporary:
        try:
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder with a hidden name beside `path`; what has that name in the end is removed.

    Raises:
        OSError: if it cannot be made.
    """
    with _unfinished(path, lambda temporary: temporary.mkdir()) as temporary:
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(path: Path, new_path: Path) -> None:
    """Move the folder `new_path` to `path`; the folder that was there is deleted.

    At every moment there is the old folder or the new one at `path`: they swap their names. Where the file
    system cannot do that, the old one is moved aside for the time of a renaming; whoever looks for it then
    puts it back, see `put_back`.

    Raises:
        OSError: if it cannot be moved; the old folder is at `path` then.
    """
    if not path.exists():
        new_path.rename(path)
    elif exchange(new_path, path):
        shutil.rmtree(new_path, ignore_errors=True)
    else:
        _replace_by_renaming(path, new_path)
    sync_folder(path.parent)


def put_back(path: Path) -> None:
    """Give a folder that is missing its old content back if a killed writer had moved it aside."""
    if path.exists():
        return
    for name in _names(path.parent):
        if (match := _MOVED_NAME.fullmatch(name)) and match[1] == path.name:
            with _flock(path.with_name(name)) as is_free, contextlib.suppress(OSError):
                if is_free is not False:
                    path.with_name(name).rename(path)


def put_back_all(folder: Path) -> None:
    """Put back everything in a folder that is missing there; see `put_back`."""
    for name in _names(folder):
        if match := _MOVED_NAME.fullmatch(name):
            put_back(folder / match[1])


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder, but not in its sub-folders; see `put_back`.

    What another process is writing stays, and so does what cannot be removed.
    """
    put_back_all(folder)
    for name in _names(folder):
        if _MOVED_NAME.fullmatch(name) or _UNFINISHED_NAME.fullmatch(name):
            _remove_left_over(folder / name)


def remove_leftovers_below(folder: Path) -> None:
    """Remove what killed writers left in a folder and in all folders below it; see `remove_leftovers`."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        remove_leftovers(path)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power failure, where the system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace_by_renaming(path: Path, new_path: Path) -> None:
    for attempt in range(_MAX_ATTEMPTS):
        moved_path = _hidden_path(path, "old")
        with _flock(path):
            path.rename(moved_path)
            try:
                new_path.rename(path)
            except OSError:
                if path.exists() and attempt < _MAX_ATTEMPTS - 1:
                    continue  # A reader has put the old one back.
                moved_path.rename(path)
                raise
        break
    shutil.rmtree(moved_path, ignore_errors=True)


@contextlib.contextmanager
def _unfinished(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new path that `make` has made, holding its lock."""
    for _ in range(_MAX_ATTEMPTS):
        temporary = _hidden_path(path, "tmp")
        make(temporary)
        with _flock(temporary) as is_free:
            # Before it was locked, another process may have taken it for a left-over.
            if is_free is not False and temporary.exists():
                yield temporary
                return
    raise OSError(f"what is made beside {path} disappears")


def _hidden_path(path: Path, ending: str) -> Path:
    """Return a new name beside `path`; it is random, as numbers of processes repeat on other hosts."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.{ending}")


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file or folder; yield whether it was free, None if it has no lock."""
    if sys.platform == "win32":
        yield None
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free: bool | None = True
        except BlockingIOError:
            is_free = False
        except OSError:
            is_free = None
        yield is_free


def _remove_left_over(path: Path) -> None:
    with _flock(path) as is_free, contextlib.suppress(OSError):
        if is_free is None:
            is_free = time.time() - path.lstat().st_mtime > _LEFT_OVER_AGE_S
        if not is_free:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (the names alone are needed)
    except OSError:
        return []
