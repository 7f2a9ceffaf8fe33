"""`MaskHeader`: size and values of a mask, read once and remembered until its file changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa.common.progress import ProgressCallback, silent
from ofa.data.header import FileHeader
from ofa.data.header_cache import HeaderCache
from ofa.data.headers import check_files
from ofa.data.mask_files import mask_values
from ofa.data.pictures import reason_of

NUM_VALUES = 256


@dataclass(frozen=True)
class MaskHeader(FileHeader):
    """A readable mask; its width and height are those of the file.

    Attributes:
        pixel_counts: pairs of a value that occurs and its number of pixels, in the order of the values.
    """

    pixel_counts: tuple[tuple[int, int], ...]

    def values(self) -> list[int]:
        """Return the attributes as a list, for a file."""
        counts = [number for pair in self.pixel_counts for number in pair]
        return [self.num_bytes, self.time_ns, self.width, self.height, *counts]

    @classmethod
    def from_values(cls, values: Sequence[int]) -> MaskHeader:
        """Return the header of `values`.

        Raises:
            ValueError: for other values.
        """
        num_bytes, time_ns, width, height, *counts = map(int, values)
        pairs = tuple(zip(counts[::2], counts[1::2], strict=True))
        if not pairs or not all(0 <= value < NUM_VALUES and count > 0 for value, count in pairs):
            raise ValueError(f"no counts of pixels: {counts}")
        return cls(num_bytes, time_ns, width, height, pairs)


MASKS = HeaderCache("masks", MaskHeader.from_values)


def check_masks(
    root: Path, paths: Sequence[Path], progress: ProgressCallback = silent
) -> list[MaskHeader | str]:
    """Return the header of every mask, or why it cannot be read; see `check_files`."""
    return check_files(root, paths, read_mask_header, cache=MASKS, purpose="reading masks", progress=progress)


def read_mask_header(path: Path) -> MaskHeader | str:
    """Return the header of a mask, or in a few words why it cannot be read."""
    try:
        status = path.stat()
        if status.st_size == 0:
            return "empty"
        with Image.open(path) as image:
            histogram = Image.fromarray(mask_values(image)).histogram()
            counts = tuple((value, count) for value, count in enumerate(histogram) if count)
            return MaskHeader(status.st_size, status.st_mtime_ns, *image.size, counts)
    except Exception as error:  # Decoders raise almost anything on damaged files.
        return reason_of(error)


def total_counts(headers: Iterable[MaskHeader]) -> npt.NDArray[np.int64]:
    """Return the number of pixels of each value in several masks, shape (256,)."""
    totals = np.zeros(NUM_VALUES, np.int64)
    for header in headers:
        values, counts = zip(*header.pixel_counts, strict=True)
        totals[list(values)] += counts
    return totals
