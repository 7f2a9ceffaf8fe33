"""`split_batches` and `split_images`: a split at the resolution of a network, with its targets or without."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ofa.data.base import ImageData, resize

BATCH_SIZE = 250


def split_batches(
    data: ImageData, split: str, resolution: int, device: torch.device, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first `limit` images of a split (None: all) at a resolution in pixels, and their targets."""
    for images, targets in data.batches(split, BATCH_SIZE, device, limit):
        yield resize(images, resolution), targets


def split_images(
    data: ImageData, split: str, resolution: int, device: torch.device, limit: int | None = None
) -> Iterator[Tensor]:
    """Yield what `split_batches` yields without the targets."""
    return (images for images, _ in split_batches(data, split, resolution, device, limit))
