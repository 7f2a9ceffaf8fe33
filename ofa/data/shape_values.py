"""Labels and numbers of drawn shapes, from their masks: which shapes are seen, how large, and where."""

from __future__ import annotations

import torch
from torch import Tensor

from ofa.data.shapes import CLASS_NAMES
from ofa.data.table_targets import UNKNOWN

SHAPE_NAMES = CLASS_NAMES[1:]
NUMBER_NAMES = ("area", "x", "y")
MIN_PIXELS = 10
"""A shape of which fewer pixels are seen, but some, is unknown."""


def shape_labels(masks: Tensor) -> Tensor:
    """Return which of `SHAPE_NAMES` are seen in masks (n, h, w): 0, 1 or `UNKNOWN` (n, 3), int8."""
    num_pixels = _num_pixels(masks)
    labels = (num_pixels >= MIN_PIXELS).to(torch.int8)
    labels[(num_pixels > 0) & (num_pixels < MIN_PIXELS)] = UNKNOWN
    return labels


def shape_numbers(masks: Tensor) -> Tensor:
    """Return `NUMBER_NAMES` of masks (n, h, w), float64 (n, 3); NaN where there is no shape.

    They are how much of the area the shapes cover together, in percent, and the centre of that, in percent of
    width and height.
    """
    is_shape = (masks > 0).double()
    height, width = masks.shape[1:]
    counts = is_shape.sum((1, 2))
    centres = [
        (is_shape.sum(axis) * (torch.arange(side) + 0.5)).sum(1) / counts * (100 / side)
        for axis, side in ((1, width), (2, height))
    ]
    return torch.stack([100 * counts / (height * width), *centres], 1)


def _num_pixels(masks: Tensor) -> Tensor:
    return torch.stack([(masks == label).flatten(1).sum(1) for label in range(1, len(CLASS_NAMES))], 1)
