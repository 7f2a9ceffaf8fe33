"""Whether a folder can be written, and has room for what is about to be written there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.unfinished import remove_leftovers, unfinished_file


def size_text(num_bytes: float) -> str:
    """Return a size for users, in kB, MB or GB with two digits, e.g. "210 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{float(f'{num_bytes / size:.2g}'):g} {unit}"
    return f"{float(f'{max(num_bytes, 1e3) / 1e3:.2g}'):g} kB"


def check_writable(folder: Path) -> None:
    """Make a folder if there is none, remove what is left over in it, and raise unless it can be written.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with unfinished_file(folder / "writable"):
            pass
    except OSError as error:
        raise UserError(
            f"Could not write into {folder}: {error}. Check the permissions and free space; "
            "nothing was changed."
        ) from error


def check_free_space(folder: Path, num_bytes: float, what: str, replaced_paths: Iterable[Path] = ()) -> None:
    """Raise if the file system of a folder clearly has too little room.

    Args:
        folder: folder that is written; it need not exist yet.
        num_bytes: size of all that will be there, in bytes.
        what: what needs the room, for the error text, e.g. "the training".
        replaced_paths: files that are there already and count as a part of it.

    Raises:
        UserError: naming the sizes needed and free.
    """
    folder = folder.absolute()
    present_folder = next(path for path in (folder, *folder.parents) if path.is_dir())
    num_present = sum(path.stat().st_size for path in replaced_paths if path.is_file())
    num_free = shutil.disk_usage(present_folder).free
    if num_bytes - num_present > num_free:
        raise UserError(
            f"There is too little room in {folder}: {what} needs up to {size_text(num_bytes - num_present)}, "
            f"{size_text(num_free)} are free. Free some space, or choose a folder on another disk."
        )
