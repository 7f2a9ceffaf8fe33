"""`Header`: what is known of a picture before its pixels are needed, and whether its file is whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ofa.data.formats import register_optional_formats
from ofa.data.modes import ALPHA_MODES, PLAIN_MODES, has_transparency, to_rgb
from ofa.data.pictures import JPEG_FORMATS, displayed_size, reason_of

# Bytes at the end of a file in which its end marker is looked for: some programs append zeros or a note.
TAIL_BYTES = 64
MAX_DECODED_PIXELS = 20_000_000
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class FileHeader:
    """A readable file of pixels.

    Attributes:
        num_bytes: size of the file.
        time_ns: time of its last change.
        width: width in pixels as displayed.
        height: height in pixels as displayed.
    """

    num_bytes: int
    time_ns: int
    width: int
    height: int

    def fits(self, status: os.stat_result) -> bool:
        """Return whether the file has not changed."""
        return (self.num_bytes, self.time_ns) == (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Header(FileHeader):
    """A readable picture.

    Attributes:
        is_transparent: whether it has an alpha channel or a transparent colour.
    """

    is_transparent: bool

    def values(self) -> list[int]:
        """Return the attributes as a list, for a file."""
        return [self.num_bytes, self.time_ns, self.width, self.height, int(self.is_transparent)]

    @classmethod
    def from_values(cls, values: Sequence[int]) -> Header:
        """Return the header of `values`.

        Raises:
            ValueError: for other values.
        """
        num_bytes, time_ns, width, height, is_transparent = map(int, values)
        return cls(num_bytes, time_ns, width, height, bool(is_transparent))


def read_header(path: Path, decode: bool) -> Header | str:
    """Return the header of a picture, or in a few words why it cannot be read.

    Args:
        path: file of the picture.
        decode: whether the pixels are decoded as well, a JPEG's at an eighth of its size. Without, they are
            decoded only where the end of the file does not show that it is whole.
    """
    register_optional_formats(str(path))
    try:
        status = path.stat()
        if status.st_size == 0:
            return "empty"
        with Image.open(path) as image:
            width, height = displayed_size(image)
            is_transparent = has_transparency(image)
            is_plain = image.mode in (*PLAIN_MODES, *ALPHA_MODES)
            is_whole = is_plain and _is_whole(path, image.format, status.st_size)
            # A JPEG is decoded at an eighth; others, very large, would fill the memory.
            is_cheap = image.format in JPEG_FORMATS or width * height <= MAX_DECODED_PIXELS
            if not is_whole or (decode and is_cheap):
                _decode(image)
        return Header(status.st_size, status.st_mtime_ns, width, height, is_transparent)
    except Exception as error:  # Decoders raise almost anything on damaged files.
        return reason_of(error)


def _is_whole(path: Path, image_format: str | None, num_bytes: int) -> bool:
    """Return whether a file ends as its format demands; False for formats without such an end."""
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, num_bytes - TAIL_BYTES))
        tail = file.read()
    if image_format in JPEG_FORMATS:
        return JPEG_END in tail
    if image_format == "PNG":
        return PNG_END in tail
    if image_format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= num_bytes
    return False


def _decode(image: Image.Image) -> None:
    """Decode an opened image, and check that its mode has a rule."""
    if image.format in JPEG_FORMATS:
        image.draft(None, (max(1, image.size[0] // 8), max(1, image.size[1] // 8)))
    image.load()
    if image.mode not in (*PLAIN_MODES, *ALPHA_MODES):
        to_rgb(image)
