"""Labels and numbers of drawn shapes, from their masks: which shapes are seen, and how large."""

from __future__ import annotations

import torch
from torch import Tensor

from ofa.data.shapes import CLASS_NAMES
from ofa.data.table_targets import UNKNOWN

SHAPE_NAMES = CLASS_NAMES[1:]
MIN_PIXELS = 10
"""A shape of which fewer pixels are seen, but some, is unknown."""


def shape_labels(masks: Tensor) -> Tensor:
    """Return which of `SHAPE_NAMES` are seen in masks (n, h, w): 0, 1 or `UNKNOWN` (n, 3), int8."""
    num_pixels = _num_pixels(masks)
    labels = (num_pixels >= MIN_PIXELS).to(torch.int8)
    labels[(num_pixels > 0) & (num_pixels < MIN_PIXELS)] = UNKNOWN
    return labels


def shape_areas(masks: Tensor) -> Tensor:
    """Return the share of the pixels of masks (n, h, w) that each of `SHAPE_NAMES` covers: percent (n, 3)."""
    return 100 * _num_pixels(masks).double() / masks[0].numel()


def _num_pixels(masks: Tensor) -> Tensor:
    return torch.stack([(masks == label).flatten(1).sum(1) for label in range(1, len(CLASS_NAMES))], 1)
