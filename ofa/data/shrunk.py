"""Shrunk copies of large photographs in a folder, so that an epoch need not decode the originals."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from ofa.common.disk import check_free_space, size_text
from ofa.common.errors import UserError
from ofa.common.unfinished import remove_leftovers, unfinished_file
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.views import shrunk_view

# Formats whose copies are JPEG files, because the original has lost its finest details already.
LOSSY_ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".avif", ".heic", ".heif")
JPEG_QUALITY = 95
# Of a copy with much detail.
BYTES_PER_PIXEL = {".jpg": 1.0, ".png": 3.0}
# A picture that is hardly larger than its copy would be gets none.
MIN_FACTOR = 1.25


def shrunk_side(image_size: int, crop_scale: float) -> int:
    """Return the short side of a copy in pixels: so long that the smallest random crop is not enlarged.

    A crop of the share `crop_scale` of the area of a square has the square root of it as its side.
    """
    return math.ceil(image_size / math.sqrt(crop_scale))


class ShrunkCopies:
    """Copies of photographs whose short side is `short_side` pixels, made when they are first needed.

    The name of a copy depends on path, size and time of change of the original and on the short side, so a
    changed original gets a new one. Copies are 8-bit RGB, turned and on white, as `read_picture` reads the
    original: JPEG files of quality 95, or PNG files if the original is of a format without loss. Several
    processes may make and read them at once.
    """

    def __init__(self, folder: str | Path, short_side: int) -> None:
        """Make the folder.

        Raises:
            UserError: if it cannot be written.
        """
        self._folder, self._short_side = Path(folder).expanduser(), short_side
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished_file(self._folder / "copy"):
                pass
        except OSError as error:
            raise _write_error(self._folder, error) from error
        remove_leftovers(self._folder)

    def copy_of(self, path: str, size: tuple[int, int]) -> str:
        """Return the file to read instead of the photograph at `path`: its copy, or itself if it is small.

        Args:
            path: file of the photograph.
            size: its width and height in pixels as displayed.

        Raises:
            UnreadableError: if it cannot be read.
            UserError: if the copy cannot be written.
        """
        if min(size) < MIN_FACTOR * self._short_side:
            return path
        copy = self._file(path)
        if not copy.exists():
            self.remake(path)
        return str(copy)

    def check_room(self, paths: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
        """Return a line for the user on the room that copies still to be made take; empty if there are none.

        Copies that are there are counted, not looked for one by one.

        Args:
            paths: file of each photograph.
            sizes: width and height of each in pixels as displayed.

        Raises:
            UserError: if the disk clearly has too little room for them.
        """
        copies = [
            self._short_side**2 * max(size) / min(size) * BYTES_PER_PIXEL[_ending(path)]
            for path, size in zip(paths, sizes, strict=True)
            if min(size) >= MIN_FACTOR * self._short_side
        ]
        num_made = sum(1 for _ in self._folder.glob("??/*"))
        num_bytes = sum(copies) * max(1 - num_made / max(len(copies), 1), 0.0)
        check_free_space(self._folder, num_bytes, "the cache of shrunk photographs (data.cache)")
        return f"shrunk copies need up to {size_text(num_bytes)} in {self._folder}" if num_bytes else ""

    def remake(self, path: str) -> str:
        """Make the copy of the photograph at `path` anew and return its file; see `copy_of`."""
        copy = self._file(path)
        image = read_picture(path, partial(shrunk_view, short_side=self._short_side))
        try:
            copy.parent.mkdir(exist_ok=True)
            # In the folder itself, not in one of its many folders, so that left-overs are easily seen.
            with unfinished_file(self._folder / copy.name) as temporary:
                _save(image, temporary, copy.suffix)
                temporary.replace(copy)
        except OSError as error:
            raise _write_error(self._folder, error) from error
        return str(copy)

    def _file(self, path: str) -> Path:
        try:
            status = os.stat(path)  # noqa: PTH116 (once per image and epoch)
        except OSError as error:
            raise UnreadableError(path, error.strerror or str(error)) from error
        key = f"{os.path.realpath(path)}|{status.st_size}|{status.st_mtime_ns}|{self._short_side}"
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}{_ending(path)}"


def _ending(path: str) -> str:
    """Return the ending of the copy of a photograph."""
    return ".jpg" if path.lower().endswith(LOSSY_ENDINGS) else ".png"


def _save(image: Image.Image, path: Path, ending: str) -> None:
    if ending == ".jpg":
        image.save(path, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(path, "PNG", compress_level=1)


def _write_error(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"The cache of shrunk photographs {folder} cannot be written ({error.strerror or error}); free "
        "space, choose another folder for data.cache, or data.cache=null."
    )
