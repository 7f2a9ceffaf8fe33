"""`View`: the part of a picture that is shown and the size it is scaled to, as numbers without pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Width to height of random crops, as in the usual training on photographs.
ASPECT_RATIOS = (3 / 4, 4 / 3)
MAX_TRIES = 10


@dataclass(frozen=True)
class View:
    """A rectangle of a displayed picture with its corner (x, y), and the size of the result; in pixels."""

    x: float
    y: float
    width: float
    height: float
    out_width: int
    out_height: int


ViewOf = Callable[[int, int], View]
"""Returns the view of a picture from its width and height as displayed, in pixels."""


def whole_view(width: int, height: int) -> View:
    """Return the view of the whole picture at its own size."""
    return View(0, 0, width, height, width, height)


def fixed_view(width: int, height: int, *, view: View, size: tuple[int, int]) -> View:
    """Return `view`, which was chosen for a picture of `size` (width, height).

    Raises:
        ValueError: if the picture has another size.
    """
    if (width, height) != size:
        raise ValueError(f"{width}x{height} pixels, where {size[0]}x{size[1]} were expected")
    return view


def centre_view(width: int, height: int, *, size: int, share: float) -> View:
    """Return the centred square of `share` of the short side, scaled to `size` pixels."""
    side = max(1, round(share * min(width, height)))
    return View((width - side) // 2, (height - side) // 2, side, side, size, size)


def input_view(width: int, height: int, *, size: tuple[int, int], share: float) -> View:
    """Return the view for a network: the centred square of `share`, or all, as `size` (width, height)."""
    if share == 1:
        return View(0, 0, width, height, *size)
    square = centre_view(width, height, size=1, share=share)
    return View(square.x, square.y, square.width, square.height, *size)


def shrunk_view(width: int, height: int, *, short_side: int) -> View:
    """Return the whole picture, scaled down so that its short side has `short_side` pixels at most."""
    factor = min(1.0, short_side / min(width, height))
    return View(0, 0, width, height, max(1, round(width * factor)), max(1, round(height * factor)))


def random_view(width: int, height: int, *, size: int, min_area: float, rng: np.random.Generator) -> View:
    """Return a random rectangle of `min_area` to all of the area, scaled to a square of `size` pixels.

    Its sides are in a ratio of 3:4 to 4:3, drawn evenly in the logarithm. Where no draw fits into the
    picture, it is the largest centred rectangle of these ratios. It does not end at whole pixels, so that it
    shows the same part of a shrunk copy.
    """
    min_ratio, max_ratio = ASPECT_RATIOS
    for _ in range(MAX_TRIES):
        area = width * height * rng.uniform(min_area, 1.0)
        ratio = math.exp(rng.uniform(math.log(min_ratio), math.log(max_ratio)))
        crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        x, y = rng.uniform(size=2).tolist()
        if crop_width <= width and crop_height <= height:
            x, y = x * (width - crop_width), y * (height - crop_height)
            return View(x, y, crop_width, crop_height, size, size)
    ratio = min(max(width / height, min_ratio), max_ratio)
    crop_width, crop_height = min(width, height * ratio), min(height, width / ratio)
    x, y = (width - crop_width) / 2, (height - crop_height) / 2
    return View(x, y, crop_width, crop_height, size, size)
