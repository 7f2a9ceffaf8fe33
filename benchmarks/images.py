"""Images that are equal in every process of a benchmark; needs only PyTorch."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_CLASSES = 1000


@lru_cache(maxsize=4)
def random_batch(batch_size: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Return noise (n, 3, resolution, resolution), and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((batch_size, 3, resolution, resolution), generator=generator)
    return images, torch.randint(NUM_CLASSES, (batch_size,), generator=generator)


def smooth_batches(count: int, resolution: int, batch_size: int) -> list[Tensor]:
    """Return `count` images in batches: patches of colour and noise of different brightness and contrast."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for first in range(0, count, batch_size):
        size = min(batch_size, count - first)
        patches = torch.randn((size, 3, 8, 8), generator=generator)
        images = F.interpolate(patches, (resolution, resolution), mode="bilinear")
        images += 0.3 * torch.randn(images.shape, generator=generator)
        brightness, contrast = torch.rand((2, size, 1, 1, 1), generator=generator)
        batches.append((0.5 + contrast) * images + 2 * brightness - 1)
    return batches
