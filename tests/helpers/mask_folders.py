"""Folders of small images with masks, drawn so that the colour of an image tells the class of its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from odd_pictures import TURNS
from PIL import Image
from torch import Tensor

from ofa.data.file_data import PHOTO_MEAN, PHOTO_STD
from ofa.data.settings import DataSettings

Pixels = npt.NDArray[np.uint8]

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
"""The colour of each class."""


def settings(root: Path, **changes: Any) -> DataSettings:
    return DataSettings("segmentation_folder", str(root), **{"image_size": 16, "workers": 0, **changes})


def draw_mask(rng: np.random.Generator, width: int = 30, height: int = 24) -> Pixels:
    """Return a mask of classes 0 to 3: three rectangles on 0, anywhere, shape (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    for label in (1, 2, 3):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        mask[top : top + rng.integers(5, 14), left : left + rng.integers(5, 14)] = label
    return mask


def write_mask(path: Path, mask: Pixels, mode: str = "L") -> None:
    """Write a mask as grey values, as indices of a palette (P), or in one bit (1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.astype(bool) if mode == "1" else mask)
    if mode == "P":
        image.putpalette([value for index in range(256) for value in (255 - index, 7 * index % 256, index)])
    image.save(path)


def write_image(path: Path, mask: Pixels, orientation: int = 1) -> None:
    """Write the picture of a mask, stored as its EXIF orientation demands, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(TURNS[orientation](COLOURS[np.where(mask < 4, mask, 0)]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def write_pair(folder: Path, name: str, mask: Pixels, mode: str = "L", orientation: int = 1) -> None:
    """Write `images/NAME.png` and `masks/NAME.png`."""
    write_image(folder / "images" / f"{name}.png", mask, orientation)
    write_mask(folder / "masks" / f"{name}.png", mask, mode)


def write_pairs(folder: Path, count: int, seed: int = 0) -> Path:
    """Write pairs of drawn masks, every second image turned by EXIF, and return the folder."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        write_pair(folder, f"{number:02d}", draw_mask(rng), orientation=6 if number % 2 else 1)
    return folder


def all_of(batches: Any) -> tuple[Tensor, Tensor]:
    images, targets = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(targets)


def pixels_of(images: Tensor) -> Tensor:
    """Return the bytes of normalised images, (n, h, w, 3)."""
    values = images.permute(0, 2, 3, 1) * torch.tensor(PHOTO_STD) + torch.tensor(PHOTO_MEAN)
    return (255 * values).round().int()


def is_plain(images: Tensor) -> Tensor:
    """Return which pixels have exactly the colour of one class, up to rounding: those beside no edge."""
    distances = (pixels_of(images)[..., None, :] - torch.from_numpy(COLOURS).int()).abs().amax(-1)
    return distances.amin(-1) <= 2


def classes_of(images: Tensor) -> Tensor:
    """Return the class whose colour is nearest to each pixel's."""
    return (pixels_of(images)[..., None, :] - torch.from_numpy(COLOURS).int()).abs().sum(-1).argmin(-1)


def aligned_share(images: Tensor, masks: Tensor) -> float:
    """Check that masks have the class that images show wherever no edge is near; return the share of that."""
    plain = is_plain(images)
    assert torch.equal(masks[plain], classes_of(images)[plain])
    return float(plain.float().mean())
