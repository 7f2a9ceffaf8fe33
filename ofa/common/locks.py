"""Locks: one process at a time works on something, and it can write where it will."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.common.unfinished import put_back, remove_leftovers

PATIENCE_S = 8.0
"""How long to wait for another process, which may be ending: workers that it forked may keep the lock until
they notice, some seconds later, that it was killed."""

_MAX_ATTEMPTS = 20


@contextlib.contextmanager
def locked(
    path: Path, what: str, *, setting: str = "run_name", patience_s: float | None = None
) -> Iterator[None]:
    """Be the only process that works on something; the lock ends with the process, however it ends.

    It holds on every host that shares the folder, as far as the file system has locks. What killed processes
    left unfinished in the folder is removed.

    Args:
        path: file of the lock; it disappears in the end, and so do folders that were made for it and are
            empty then. A file beside it, with the suffix `.holder`, names the holder: Windows lets nobody
            read the lock while it is held.
        what: what is locked, for the error text.
        setting: name of the setting by which another such thing is chosen, for the error text.
        patience_s: how long to wait for another process; None for `PATIENCE_S`.

    Raises:
        UserError: if another process keeps the lock, naming it, or the folder cannot be written.
    """
    holder_path = path.with_suffix(".holder")
    lock = FileLock(path, timeout=PATIENCE_S if patience_s is None else patience_s)
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        _acquire(lock, path)
        holder_path.write_text(f"{os.getpid()} on {platform.node()}\n", encoding="utf-8")
    except Timeout as error:
        raise UserError(
            f"Another process, {_read_holder(holder_path)}, is at work on {what}; wait "
            f"for it to end, stop it, or choose another {setting}."
        ) from error
    except OSError as error:
        _release(lock, path, holder_path, new_folders)
        raise UserError(
            f"Could not write {path}: {error}. Check the permissions and free space; nothing was changed."
        ) from error
    try:
        remove_leftovers(path.parent)
        yield
    finally:
        _release(lock, path, holder_path, new_folders)


@contextlib.contextmanager
def sole_writer(
    path: Path, what: str, *, setting: str = "name", patience_s: float | None = None
) -> Iterator[None]:
    """Be the only process that writes a file or folder, and find out first that it can be written.

    Args:
        path: what is written; its lock is beside it.
        what: what it is, for the error text, e.g. "bundle".
        setting: name of the setting that chooses it.
        patience_s: how long to wait for another process; None for `PATIENCE_S`.

    Raises:
        UserError: as `locked`.
    """
    path = path.absolute()
    lock_path = path.with_name(f".{path.name}.lock")
    with locked(lock_path, f"the {what} {path}", setting=setting, patience_s=patience_s):
        put_back(path)
        if path.is_dir():
            remove_leftovers(path)
        yield


def _acquire(lock: FileLock, path: Path) -> None:
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            return
        except (FileNotFoundError, FileExistsError):
            # The process that had made the folder may have removed it just now.
            if attempt == _MAX_ATTEMPTS:
                raise


def _release(lock: FileLock, path: Path, holder_path: Path, new_folders: Sequence[Path]) -> None:
    """End a lock, and remove its files and those folders made for it that have stayed empty.

    A process that waits for a lock whose file was removed begins anew with another file.
    """
    if lock.is_locked:
        for file in (holder_path, path):
            with contextlib.suppress(OSError):
                file.unlink()
    lock.release()
    with contextlib.suppress(OSError):
        for folder in new_folders:
            folder.rmdir()


def _read_holder(path: Path) -> str:
    try:
        return short_text(path.read_text(encoding="utf-8", errors="replace").strip()) or "unknown"
    except OSError:
        return "unknown"
