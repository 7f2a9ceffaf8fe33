"""`Change`: shifts and mirror images of a batch that is held in memory."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.data.base import send
from ofa.data.settings import DataSettings


class Change:
    """A shift and a mirroring of each image of a batch, drawn at once and applied to anything of its size."""

    def __init__(
        self, settings: DataSettings, rng: np.random.Generator, batch_size: int, part: slice
    ) -> None:
        """Draw for a whole batch, and keep what is for the images of `part`."""
        self._padding = padding = settings.crop_padding
        self._offsets = rng.integers(0, 2 * padding + 1, (2, batch_size, 1))[:, part] if padding else None
        self._is_mirrored = rng.random(batch_size)[part] < 0.5 if settings.horizontal_flip else None

    def __call__(self, images: Tensor, fill: int = 0) -> Tensor:
        """Return images (n, c, h, w), each shifted and mirrored by itself; `fill` comes in from outside."""
        if self._offsets is not None:
            height, width = images.shape[-2:]
            padded = F.pad(images, [self._padding] * 4, value=fill)
            shifts = send(torch.from_numpy(self._offsets), images.device)
            rows = shifts[0] + torch.arange(height, device=images.device)
            columns = shifts[1] + torch.arange(width, device=images.device)
            samples = torch.arange(len(images), device=images.device)[:, None, None]
            # Indexing puts the channels last; permuting back keeps that memory format.
            images = padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]]
            images = images.permute(0, 3, 1, 2)
        if self._is_mirrored is not None:
            is_mirrored = send(torch.from_numpy(self._is_mirrored), images.device)
            images = torch.where(is_mirrored[:, None, None, None], images.flip(-1), images)
        return images
