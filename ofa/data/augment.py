"""Random changes of training photographs, each determined by the seed of its image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.data.pictures import read_picture
from ofa.data.settings import DataSettings
from ofa.data.views import View, random_view

if TYPE_CHECKING:
    from torchvision.transforms import v2  # takes two seconds; many processes change no photographs


@dataclass(frozen=True)
class Placement:
    """The part of a picture that is shown, and whether it is mirrored."""

    view: View
    is_mirrored: bool = False


class Augmentation:
    """Random crop, mirroring, and the changes that the settings add, for one photograph at a time."""

    def __init__(self, settings: DataSettings, mean: tuple[float, ...]) -> None:
        """Take the settings; erased rectangles are filled with `mean` (0..1 per channel)."""
        self._size, self._min_area = settings.image_size, settings.crop_scale
        self._mirrors = settings.horizontal_flip
        self._change = _change(settings.augment)
        self._erase: v2.RandomErasing | None = None
        if settings.random_erasing:
            from torchvision.transforms import v2

            colour = [float(round(255 * value)) for value in mean]
            self._erase = v2.RandomErasing(settings.random_erasing, value=colour)

    def read(self, path: str | Path, seed: int) -> Tensor:
        """Return the photograph at `path` as a training image, uint8 (3, size, size).

        Raises:
            UnreadableError: if it cannot be read.
        """
        rng = np.random.default_rng(seed)
        image = read_picture(path, partial(self._view, rng=rng))
        if self._is_mirrored(rng):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._change is None and self._erase is None:
            return to_tensor(image)
        # Transforms draw from the global generator: seed it for this image only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels = to_tensor(image if self._change is None else self._change(image))
            return pixels if self._erase is None else self._erase(pixels)

    def placement(self, width: int, height: int, seed: int) -> Placement:
        """Return how `read` crops and mirrors a picture of `width` x `height` pixels as displayed."""
        rng = np.random.default_rng(seed)
        view = self._view(width, height, rng)
        return Placement(view, self._is_mirrored(rng))

    def _view(self, width: int, height: int, rng: np.random.Generator) -> View:
        return random_view(width, height, size=self._size, min_area=self._min_area, rng=rng)

    def _is_mirrored(self, rng: np.random.Generator) -> bool:
        return self._mirrors and rng.random() < 0.5


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _change(name: str) -> v2.Transform | None:
    if name not in ("randaugment", "trivial"):
        return None
    from torchvision.transforms import InterpolationMode, v2

    if name == "randaugment":
        return v2.RandAugment(interpolation=InterpolationMode.BILINEAR)
    return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
