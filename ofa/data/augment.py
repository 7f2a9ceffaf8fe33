"""Random changes of training photographs, each determined by the seed of its image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ofa.data.pictures import read_picture
from ofa.data.settings import DataSettings
from ofa.data.views import random_view


class Augmentation:
    """Random crop, mirroring, and the changes that the settings add, for one photograph at a time."""

    def __init__(self, settings: DataSettings, mean: tuple[float, ...]) -> None:
        """Take the settings; erased rectangles are filled with `mean` (0..1 per channel)."""
        self._size, self._min_area = settings.image_size, settings.crop_scale
        self._is_mirrored = settings.horizontal_flip
        self._change = _change(settings.augment)
        self._erase: v2.RandomErasing | None = None
        if settings.random_erasing:
            colour = [float(round(255 * value)) for value in mean]
            self._erase = v2.RandomErasing(settings.random_erasing, value=colour)

    def read(self, path: str | Path, seed: int) -> Tensor:
        """Return the photograph at `path` as a training image, uint8 (3, size, size).

        Raises:
            UnreadableError: if it cannot be read.
        """
        rng = np.random.default_rng(seed)
        view_of = partial(random_view, size=self._size, min_area=self._min_area, rng=rng)
        image = read_picture(path, view_of)
        if self._is_mirrored and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._change is None and self._erase is None:
            return to_tensor(image)
        # Transforms draw from the global generator: seed it for this image only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels = to_tensor(image if self._change is None else self._change(image))
            return pixels if self._erase is None else self._erase(pixels)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _change(name: str) -> v2.Transform | None:
    if name == "randaugment":
        return v2.RandAugment(interpolation=InterpolationMode.BILINEAR)
    if name == "trivial":
        return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    return None
