"""`unet`: a small encoder and decoder for segmentation, as a model to begin with."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unet(
    in_channels: int = 3, num_classes: int = 4, width: int = 16, num_levels: int = 3, num_blocks: int = 2
) -> UNet:
    """Return a U-Net (Ronneberger et al. 2015) with residual blocks and random weights.

    Args:
        in_channels: channels of an image.
        num_classes: classes of a pixel.
        width: channels of the first level; each further one has twice as many.
        num_levels: number of sizes; the sides of the images are multiples of 2 ** (num_levels - 1).
        num_blocks: residual blocks of a level of the encoder.
    """
    return UNet(in_channels, num_classes, [width * 2**level for level in range(num_levels)], num_blocks)


class UNet(nn.Module):
    """Images (n, in_channels, h, w) to logits (n, num_classes, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, widths: list[int], num_blocks: int) -> None:
        """Build the network; `widths` are the channels of the levels, the finest first."""
        super().__init__()
        sources = [in_channels, *widths]
        self.encoder = nn.ModuleList(
            nn.Sequential(_convolution(source, width), *(_Block(width) for _ in range(num_blocks)))
            for source, width in zip(sources, widths, strict=False)
        )
        self.decoder = nn.ModuleList(_convolution(coarse + fine, fine) for fine, coarse in pairwise(widths))
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each pixel."""
        maps, skipped = images, list[Tensor]()
        for level, stage in enumerate(self.encoder):
            maps = stage(F.max_pool2d(maps, 2) if level else maps)
            skipped.append(maps)
        for level in reversed(range(len(self.decoder))):
            maps = torch.cat([F.interpolate(maps, scale_factor=2.0), skipped[level]], 1)
            maps = self.decoder[level](maps)
        logits: Tensor = self.head(maps)
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _convolution(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.norm(self.inner(maps)))


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
