"""`Preprocessing`: conversion of pixels to a network's input, identical to training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.common.errors import UserError
from ofa.data.pictures import read_picture
from ofa.data.views import input_view

_RESIZE = "bilinear, antialiased"


def centre_crop(images: Tensor, side: int) -> Tensor:
    """Return the square of `side` pixels in the middle of images (n, c, h, w) that are not smaller."""
    top, left = (round((size - side) / 2) for size in images.shape[-2:])
    return images[..., top : top + side, left : left + side]


@dataclass(frozen=True)
class Preprocessing:
    """Scaling of pixels, normalisation per channel, and resizing to the resolution.

    Attributes:
        mean: mean of the scaled pixels, per channel.
        std: standard deviation of the scaled pixels, per channel.
        pixel_scale: factor of the pixels 0..255 before normalisation.
        resize: interpolation method; only the one used in training.
        centre_share: share of the short side kept by the square centre crop; 1 resizes whole images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_scale: float = 1 / 255
    resize: str = _RESIZE
    centre_share: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers of channels and the ranges."""
        if not self.mean or len(self.mean) != len(self.std):
            raise UserError(
                f"mean has {len(self.mean)} values and std {len(self.std)}; expected one each per channel."
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise UserError(f"mean is {self.mean} and std {self.std}; expected numbers, std above 0.")
        if not 0 < self.pixel_scale < math.inf:
            raise UserError(f"pixel_scale is {self.pixel_scale}; expected a positive number.")
        if not 0 < self.centre_share <= 1:
            raise UserError(f"centre_share is {self.centre_share}; expected a share in (0, 1].")
        if self.resize != _RESIZE:
            raise UserError(f"resize is {self.resize!r}; expected {_RESIZE!r}.")

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return len(self.mean)

    def read(self, path: str | Path, resolution: int | tuple[int, int]) -> Tensor:
        """Return the network's input for the picture in a file, shape (1, in_channels, h, w).

        Args:
            path: file of any format and mode that `read_picture` knows.
            resolution: side of the result in pixels, or its height and width.

        Raises:
            UserError: if the file cannot be read, or the network takes neither grey nor RGB images.
        """
        if self.in_channels not in (1, 3):
            raise UserError(
                f"The network takes images of {self.in_channels} channels; a picture has 3, or 1 in grey. "
                "Compute the pixels yourself and call apply."
            )
        height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
        image = read_picture(path, partial(input_view, size=(width, height), share=self.centre_share))
        pixels = torch.from_numpy(np.array(image if self.in_channels == 3 else image.convert("L")))
        pixels = pixels.view(1, height, width, self.in_channels).permute(0, 3, 1, 2)
        return dataclasses.replace(self, centre_share=1.0).apply(pixels, (height, width))

    def apply(self, images: Tensor, resolution: int | tuple[int, int]) -> Tensor:
        """Return the network's input for images of pixels 0..255.

        Args:
            images: shape (n, in_channels, h, w), any h and w.
            resolution: side of the result in pixels, or its height and width.

        Raises:
            UserError: if the number of channels differs.
        """
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise UserError(
                f"images have shape {tuple(images.shape)}; expected (n, {self.in_channels}, height, width)."
            )
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.mean, self.std))
        images = (images.float() * self.pixel_scale - mean) / std
        if self.centre_share < 1:
            images = centre_crop(images, round(self.centre_share * min(images.shape[-2:])))
        size = (resolution, resolution) if isinstance(resolution, int) else resolution
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        return images
