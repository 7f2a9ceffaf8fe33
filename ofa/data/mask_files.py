"""`read_mask`: the one function that reads a mask's file, whose pixels are the numbers of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from ofa.data.pictures import UnreadableError, reason_of
from ofa.data.views import View, ViewOf, whole_view

Values = npt.NDArray[np.uint8]

MASK_MODES = ("P", "L", "1")
# Pillow stretches grey of 2 and 4 bits to 0..255; the numbers of classes are what stands in the file.
STRETCH_FACTORS = {"L;2": 85, "L;4": 17}
_EXPECTED = "expected the number of a class in each pixel, in an indexed, 8-bit grey or 1-bit PNG"


class MaskError(Exception):
    """A picture that is no mask."""


def read_mask(path: str | Path, view_of: ViewOf = whole_view) -> Values:
    """Return the values of a mask, or of a part of it, uint8 (height, width).

    The part is scaled to the nearest neighbour, so that there are only values of the file. A mask is not
    turned by EXIF data.

    Args:
        path: PNG file of the modes `MASK_MODES`.
        view_of: returns the part and the size of the result from the mask's width and height.

    Raises:
        UnreadableError: if the file is missing, damaged, or no mask.
    """
    try:
        with Image.open(path) as image:
            return _nearest(mask_values(image), view_of(*image.size))
    except Exception as error:  # Decoders raise almost anything on damaged files.
        raise UnreadableError(str(path), reason_of(error)) from error


def mask_values(image: ImageFile.ImageFile) -> Values:
    """Return the values of an opened mask as they stand in the file, uint8 (height, width).

    Raises:
        MaskError: if it is not a PNG file of one of the modes `MASK_MODES`.
    """
    if image.format != "PNG":
        raise MaskError(f"a file of the format {image.format}; {_EXPECTED}")
    if image.mode not in MASK_MODES:
        advice = ": convert the colours to the numbers" if image.mode.startswith("RGB") else ""
        raise MaskError(f"pixels of mode {image.mode}; {_EXPECTED}{advice}")
    # Known only until the pixels are loaded.
    stored_mode = image.tile[0].args if image.tile else image.mode
    factor = STRETCH_FACTORS.get(str(stored_mode), 1)
    values: Values = np.asarray(image).astype(np.uint8)
    return values if factor == 1 else values // np.uint8(factor)


def _nearest(values: Values, view: View) -> Values:
    height, width = values.shape
    rows = _nearest_indices(view.y, view.height, view.out_height, height)
    columns = _nearest_indices(view.x, view.width, view.out_width, width)
    return values[rows[:, None], columns]


def _nearest_indices(start: float, length: float, num_pixels: int, limit: int) -> npt.NDArray[np.int64]:
    """Return in which pixels, of `limit`, the centres of the result's pixels lie."""
    centres = start + (np.arange(num_pixels) + 0.5) * (length / num_pixels)
    # Sums of fractions may end a little beyond the border.
    indices: npt.NDArray[np.int64] = np.floor(centres).astype(np.int64).clip(0, limit - 1)
    return indices
