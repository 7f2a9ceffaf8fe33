"""Files that are whole or absent: atomic writing, and locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ofa.common.errors import UserError


def sha256(content: bytes) -> str:
    """Return the hex digest of `content`."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`.

    Whatever happens, `path` holds either its old content or the whole new one.

    Raises:
        UserError: if the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as RuntimeError.
        if isinstance(error, RuntimeError) and not _is_write_failure(error):
            raise
        raise UserError(
            f"Could not write {path}: {error}. Check the permissions and free space; "
            "what was saved there before is untouched."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _is_write_failure(error: RuntimeError) -> bool:
    text = str(error)
    return "PytorchStreamWriter" in text or "unexpected pos" in text or "iostream" in text


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as indented JSON, atomically; see `write_atomic`."""
    text = json.dumps(values, indent=2) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text))


@contextlib.contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """Yield a new folder beside `path` that becomes `path` if all goes well, and else disappears.

    A folder that is at `path` is deleted when the new one has taken its place.

    Args:
        path: the folder.
        what: what it is, for the error text, e.g. "bundle".

    Raises:
        UserError: if it cannot be written.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _replace(path, temporary)
    except OSError as error:
        raise UserError(
            f"Could not write the {what} {path}: {error}. Check the permissions and free space; "
            "what was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new_path: Path) -> None:
    """Move the folder `new_path` to `path`; what is there is deleted when `new_path` has taken its place."""
    if not path.exists():
        new_path.rename(path)
        return
    old_path = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old_path)
    try:
        new_path.rename(path)
    except OSError:
        old_path.rename(path)
        raise
    shutil.rmtree(old_path, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, what: str, patience_s: float = 8.0) -> Iterator[None]:
    """Be the only process that works on something; the lock ends with the process, however it ends.

    Args:
        path: file of the lock; it stays. A file beside it, with the suffix `.holder`, names the last holder:
            Windows lets nobody read the lock while it is held.
        what: what is locked, for the error text.
        patience_s: how long to wait for another process, which may be ending: workers that it forked may keep
            the lock until they notice, some seconds later, that it was killed.

    Raises:
        UserError: if another process keeps the lock, naming it.
    """
    holder = path.with_suffix(".holder")
    lock = FileLock(path, timeout=patience_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        holder.write_text(f"{os.getpid()} on {platform.node()}\n")
    except Timeout as error:
        raise UserError(
            f"Another process, {_read_holder(holder)}, is at work on {what}; wait "
            "for it to end, stop it, or choose another run_name."
        ) from error
    except OSError as error:
        lock.release()
        raise UserError(f"Could not write {path}: {error}. Check the permissions and free space.") from error
    try:
        yield
    finally:
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
