"""What every image set offers: its facts, and batches of normalised images of three splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ofa.distributed import ALONE, World
from ofa.errors import UserError, unknown_name

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they are split and augmented.

    Attributes:
        name: one of the known sets (`ofa.data.load.SOURCES`).
        root: folder of the files; null for embedded sets.
        download: whether torchvision may download a missing set into `root`.
        validation_size: images cut from the training set for predictor and selection.
        crop_padding: pixels of zero padding for random crops of sets held in memory.
        horizontal_flip: whether training images are mirrored at random.
        image_size: side of the images that folder sets yield, before the step's resolution.
        crop_scale: smallest area share of random resized crops of folder sets.
        workers: processes that decode images of folder sets.
        split_seed: seed of the validation split.
    """

    name: str
    root: str | None = None
    download: bool = False
    validation_size: int = 0
    crop_padding: int = 0
    horizontal_flip: bool = False
    image_size: int = 224
    crop_scale: float = 0.25
    workers: int = 2
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.validation_size < 1:
            raise UserError(f"validation_size is {self.validation_size}; expected at least 1 image.")
        if self.crop_padding < 0 or self.workers < 0 or self.image_size < 1:
            raise UserError("crop_padding and workers must not be negative, image_size at least 1.")
        if not 0 < self.crop_scale <= 1:
            raise UserError(f"crop_scale is {self.crop_scale}; expected a share of the area in (0, 1].")


@dataclass(frozen=True)
class DataInfo:
    """Facts that a network needs of its images.

    Attributes:
        name: of the set.
        in_channels: of an image.
        class_names: name of each label.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
        centre_share: share of the short side that evaluation keeps, as a centred square; 1: whole images.
    """

    name: str
    in_channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre_share: float = 1.0

    def __post_init__(self) -> None:
        """Check that images can be divided by the deviations."""
        if min(self.std) < 1e-6:
            raise UserError(
                f"All images of {self.name} have equal values in a channel: nothing can be learnt."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


class ImageData(ABC):
    """Batches (images, labels): float32 images (n, channels, h, w), normalised, and int64 labels (n,)."""

    def __init__(self, info: DataInfo) -> None:
        """Keep the facts."""
        self.info = info
        self._mean_and_std: dict[torch.device, Tensor] = {}

    @abstractmethod
    def size(self, split: str) -> int:
        """Return the number of images of a split."""

    @abstractmethod
    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        device: torch.device,
        first: int = 0,
        world: World = ALONE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of the augmented full batches of one epoch from batch `first` on.

        Order and augmentation depend on `seed`, `epoch` and the batch's index alone, so that the parts of
        all processes are the batch of a single one.
        """

    @abstractmethod
    def batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first `limit` images of a split (None: all) without augmentation, in fixed order.

        The order of the training split is a fixed shuffle, so that its first images are a fair sample.
        """

    def num_batches(self, batch_size: int) -> int:
        """Return the number of full training batches of one epoch."""
        if self.size("train") < batch_size:
            raise UserError(
                f"batch_size is {batch_size} but {self.info.name} has {self.size('train')} training images; "
                "choose a smaller batch_size."
            )
        return self.size("train") // batch_size

    def normalise(self, images: Tensor, device: torch.device) -> Tensor:
        """Return uint8 images (n, c, h, w) as normalised float32 in channels-last memory format."""
        if device not in self._mean_and_std:
            # Made once: whatever is made from plain values waits for a CUDA device.
            both = torch.tensor([self.info.mean, self.info.std], device=device)
            self._mean_and_std[device] = both[:, :, None, None]
        mean, std = self._mean_and_std[device]
        images = images.to(device, non_blocking=True).float() / 255.0
        return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Return images (n, c, h, w) resized to (n, c, resolution, resolution), antialiased bilinear."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    resized: Tensor = V.resize(images, [resolution, resolution], antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; the processor does not wait until a CUDA device has it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def check_split(split: str) -> None:
    """Raise the error for an unknown split name."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
