"""What is in a folder: class folders, their pictures, and the files that are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ofa.common.errors import UserError
from ofa.data.formats import readable_endings, remedy_for

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
HIDDEN = "hidden"
"""Key of `Listing.left_out` for hidden files and folders, and those that systems put beside pictures."""
BESIDE = "beside the class folders"
"""Key of `Listing.left_out` for pictures that are in no class folder."""


@dataclass
class Listing:
    """Pictures by class, and what was left out.

    Attributes:
        paths: file of each picture, class by class, in the order of their names.
        labels: class of each picture.
        left_out: number of other files by ending in lower case, or by one of the keys above.
    """

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or one of those that systems put beside pictures."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def class_folders(path: Path) -> list[str]:
    """Return the sorted names of the folders in `path` that are not hidden; links count as what they link to.

    Raises:
        UserError: if `path` cannot be read.
    """
    return sorted(entry.name for entry in _entries(path) if entry.is_dir() and not is_hidden(entry.name))


def list_pictures(path: Path, class_names: Sequence[str]) -> Listing:
    """Return the pictures in the folders `path/CLASS`, with the folders inside them and those they link to.

    Raises:
        UserError: if a class has no picture, naming what it has, or a folder cannot be read.
    """
    endings, listing, problems = readable_endings(), Listing(), []
    for entry in _entries(path):
        if is_hidden(entry.name):
            listing.left_out[HIDDEN] += 1
        elif not entry.is_dir() and _ending(entry.name) in endings:
            listing.left_out[BESIDE] += 1
    for label, name in enumerate(class_names):
        left_out: Counter[str] = Counter()
        paths = sorted(_pictures(path / name, endings, left_out, set()))
        listing.paths += paths
        listing.labels += [label] * len(paths)
        listing.left_out += left_out
        if not paths:
            others = f" (there are {_counts_text(left_out)})" if left_out else ""
            problems.append(f"{path} has no images for {name}{others}.")
    if problems:
        problems.append(f"Expected files ending in {', '.join(endings)}.")
        raise UserError("\n".join(problems))
    return listing


def list_folder(path: Path, endings: tuple[str, ...] | None = None) -> Listing:
    """Return the pictures in a folder, the folders inside it and those they link to, without labels.

    Args:
        path: the folder.
        endings: endings of the pictures in lower case; None for all that can be read.

    Raises:
        UserError: if there is no picture, naming what there is, or a folder cannot be read.
    """
    endings, listing = endings or readable_endings(), Listing()
    listing.paths = sorted(_pictures(path, endings, listing.left_out, set()))
    if not listing.paths:
        others = f" (there are {_counts_text(listing.left_out)})" if listing.left_out else ""
        raise UserError(f"{path} has no pictures{others}. Expected files ending in {', '.join(endings)}.")
    return listing


def class_of(path: Path, root: Path, class_names: Collection[str]) -> str | None:
    """Return the class that the folders of a picture say, `root/CLASS/…`; None if they name no class.

    Of several it is the outermost, as in training.
    """
    folders = path.relative_to(root).parts[:-1]
    return next((name for name in folders if name in class_names), None)


def left_out_note(left_out: Counter[str]) -> str:
    """Return the line about files that are left out; empty if there are none."""
    if not left_out:
        return ""
    num_files = left_out.total()
    return f"{num_files} file{'s' * (num_files > 1)} left out: {_counts_text(left_out)}"


def _counts_text(left_out: Counter[str]) -> str:
    """Return e.g. `7 .heic (pip install … reads them), 5 .txt`, the most frequent first."""
    texts = []
    for ending, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0])):
        remedy = remedy_for(ending)
        texts.append(f"{count} {ending}{f' ({remedy})' if remedy else ''}")
    return ", ".join(texts)


def _pictures(
    folder: Path, endings: tuple[str, ...], left_out: Counter[str], seen: set[tuple[int, int]]
) -> Iterator[Path]:
    """Yield the pictures in a folder and below; `seen` holds the visited folders, so loops of links end."""
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return
    seen.add(identity)
    for entry in _entries(folder):
        if is_hidden(entry.name):
            left_out[HIDDEN] += 1
        elif entry.is_dir():
            yield from _pictures(folder / entry.name, endings, left_out, seen)
        elif _ending(entry.name) in endings:
            yield folder / entry.name
        else:
            left_out[_ending(entry.name) or "without an ending"] += 1


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be read: {error.strerror or error}.") from error


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a hundred thousand names)
