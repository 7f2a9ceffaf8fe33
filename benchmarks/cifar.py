"""CIFAR-10 with the usual changes of training images, from torchvision's files or folders of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.data.base import ImageData
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data


def cifar10(root: str) -> ImageData:
    """Return CIFAR-10, mirrored and shifted by up to 4 pixels in training, 5,000 images for validation.

    Args:
        root: torchvision's folder, or one with pictures in train/CLASS and test/CLASS.
    """
    settings = DataSettings("cifar10", root, crop_padding=4, horizontal_flip=True, validation_size=5_000)
    folder = Path(root)
    if not (folder / "train").is_dir():
        return load_data(settings)
    names = tuple(sorted(path.name for path in (folder / "train").iterdir()))
    train, test = (_pictures(folder / split, names) for split in ("train", "test"))
    return MemoryData(settings, names, train, test)


def _pictures(folder: Path, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return the pictures (n, 3, 32, 32) in folders of classes, and their labels."""
    images, labels = [], []
    for label, name in enumerate(class_names):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as picture:
                images.append(np.asarray(picture.convert("RGB")))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
