"""Files that are whole or absent: atomic writing, and locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ofa.common.errors import UserError
from ofa.common.unfinished import replace_folder, sync_folder, unfinished_file, unfinished_folder


def sha256(content: bytes) -> str:
    """Return the hex digest of `content`."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`.

    Whatever happens, `path` holds either its old content or the whole new one.

    Raises:
        UserError: if the folder cannot be written or the disk is full.
    """
    write_together({path: write})


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write files of one folder that belong together, each like `write_atomic`.

    They are renamed in their order when all of them are written, so that hardly a moment has some old and
    some new ones. Where that matters, one of them holds the hash of the others.

    Args:
        writers: what fills a temporary file, by the path of the file; called in their order.

    Raises:
        UserError: if the folder cannot be written or the disk is full; nothing was replaced then.
    """
    path = next(iter(writers))
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary_paths = []
            for path, write in writers.items():
                temporary_paths.append(stack.enter_context(unfinished_file(path)))
                write(temporary_paths[-1])
                with temporary_paths[-1].open("rb+") as file:
                    os.fsync(file.fileno())
            for path, temporary in zip(writers, temporary_paths, strict=True):
                temporary.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            # torch.save reports a full disk as RuntimeError.
            if isinstance(error, RuntimeError) and not _is_write_failure(error):
                raise
            raise UserError(
                f"Could not write {path}: {error}. Check the permissions and free space; "
                "what was saved there before is untouched."
            ) from error


def _is_write_failure(error: RuntimeError) -> bool:
    text = str(error)
    return "PytorchStreamWriter" in text or "unexpected pos" in text or "iostream" in text


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as indented JSON, atomically; see `write_atomic`."""
    write_atomic(path, json_writer(values))


def json_writer(values: Mapping[str, Any]) -> Callable[[Path], object]:
    """Return the function that writes `values` as indented JSON, for `write_together`."""
    text = json.dumps(values, indent=2) + "\n"
    return lambda temporary: temporary.write_text(text, encoding="utf-8")


def append_line(path: Path, line: bytes) -> None:
    """Write `line` at the end of a file and synchronise; on failure truncate the file to its old length.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open("ab", buffering=0) as file:
        old_size = file.tell()
        try:
            num_written = file.write(line)
            if num_written != len(line):
                raise OSError(f"only {num_written} of {len(line)} bytes were written")
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(old_size)
            raise


@contextlib.contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """Yield a new folder beside `path` that becomes `path` if all goes well, and else disappears.

    A folder that is at `path` is deleted when the new one has taken its place; see `replace_folder`.

    Args:
        path: the folder.
        what: what it is, for the error text, e.g. "bundle".

    Raises:
        UserError: if it cannot be written.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(path) as temporary:
            yield temporary
            replace_folder(path, temporary)
    except OSError as error:
        raise UserError(
            f"Could not write the {what} {path}: {error}. Check the permissions and free space; "
            "what was there before is untouched."
        ) from error
