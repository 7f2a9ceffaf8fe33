"""`draw_shapes`: pictures of circles, squares and triangles with their masks, drawn by the program."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

CLASS_NAMES = ("background", "circle", "square", "triangle")
SIDE = 32
_MAX_SHAPES, _RADII = 4, (4, 10)


def draw_shapes(count: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return pictures, uint8 (count, 3, side, side), and masks, uint8 (count, side, side), of `CLASS_NAMES`.

    Up to four shapes of random size, place, angle and colour lie over each other and over the edges, on a
    slope of colours with noise; the mask shows what is in front.
    """
    rng = np.random.default_rng(seed)
    pictures, masks = np.empty((count, side, side, 3), np.uint8), np.empty((count, side, side), np.uint8)
    for index in range(count):
        pictures[index], masks[index] = _drawn(rng, side)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks)


def _drawn(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    slope = np.linspace(0, 1, side)[:, None, None]
    first, last = rng.uniform(0, 255, (2, 3))
    picture = Image.fromarray((first + (last - first) * slope + np.zeros((1, side, 1))).astype(np.uint8))
    mask = Image.new("L", (side, side))
    for _ in range(rng.integers(1, _MAX_SHAPES + 1)):
        label = int(rng.integers(1, len(CLASS_NAMES)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        corners = _corners(label, rng, side)
        ImageDraw.Draw(picture).polygon(corners, fill=colour)
        ImageDraw.Draw(mask).polygon(corners, fill=label)
    noise = rng.normal(0, 6, (side, side, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8), np.asarray(mask)


def _corners(label: int, rng: np.random.Generator, side: int) -> list[tuple[float, float]]:
    """Return the corners of a shape; a circle has forty."""
    num_corners = {1: 40, 2: 4, 3: 3}[label]
    (x, y), radius, turn = rng.uniform(0, side, 2), rng.uniform(*_RADII), rng.uniform(0, 2 * np.pi)
    angles = turn + 2 * np.pi * np.arange(num_corners) / num_corners
    corners = zip(x + radius * np.cos(angles), y + radius * np.sin(angles), strict=True)
    return [(float(column), float(row)) for column, row in corners]
