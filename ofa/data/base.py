"""`ImageData`: an image set with batches of normalised images from three splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError, unknown_name
from ofa.data.settings import DataInfo

SPLITS = ("train", "validation", "test")


class ImageData(ABC):
    """Batches (images, targets): float32 images (n, channels, h, w), normalised, and their targets.

    Targets are labels (n,), masks (n, height, width) of classes and `IGNORED`, 0, 1 or -1 (unknown) for each
    label (n, labels), or numbers (n, columns), float64 with NaN for what is unknown. Those of a task of the
    user's own have any further axes, and may be numbers in floating point.
    """

    def __init__(self, info: DataInfo) -> None:
        """Take the properties of the images."""
        self.info = info
        self._mean_and_std: dict[torch.device, Tensor] = {}

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.info.in_channels

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.info.num_classes

    @property
    def balance(self) -> str:
        """How rare classes are balanced in training: `none`, `sampling`, or `loss`, which weights them."""
        return "none"

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about the set: how it is split, and what is left out."""
        return ()

    @property
    def fills_last_batch(self) -> bool:
        """Whether an incomplete last batch of an epoch is filled up instead of being left out."""
        return False

    @property
    def is_in_memory(self) -> bool:
        """Whether the pixels are held in memory, so that nobody else needs to keep them."""
        return False

    @abstractmethod
    def size(self, split: str) -> int:
        """Return the number of images of a split."""

    @property
    @abstractmethod
    def short_side(self) -> int:
        """Median short side of the training images in pixels, before they are cropped or resized."""

    @abstractmethod
    def class_counts(self, split: str) -> tuple[int, ...]:
        """Return the number of images of each class in a split; empty where targets are no classes."""

    def negative_counts(self, split: str) -> tuple[int, ...] | None:
        """Return the number of images without each label in a split; None where an image has one class."""
        return None

    @abstractmethod
    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        device: torch.device,
        first: int = 0,
        world: World = SINGLE_PROCESS,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of one epoch's augmented batches, starting at batch `first`.

        All batches are full: an incomplete last one is left out, or filled up with the first images of the
        same epoch, augmented anew. Order and augmentation depend only on `seed`, `epoch` and the index of the
        batch, so the parts of all processes together equal the batch of a single process.
        """

    @abstractmethod
    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what `batches` yields before it is normalised: uint8 images (n, c, h, w) and their targets.

        Targets are as `batches` yields them, or integers of fewer bytes, which take less memory.
        """

    def batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first `limit` images of a split (None: all) without augmentation, in fixed order.

        The order of the training split is a fixed shuffle, so its first images are a representative sample.
        """
        for pixels, targets in self.pixel_batches(split, batch_size, device, limit):
            yield self.normalise(pixels, device), network_targets(targets)

    def num_batches(self, batch_size: int) -> int:
        """Return the number of training batches of one epoch, all of them full."""
        if self.size("train") < batch_size:
            raise UserError(
                f"batch_size is {batch_size} but {self.info.name} has {self.size('train')} training images; "
                "choose a smaller batch_size."
            )
        whole, remainder = divmod(self.size("train"), batch_size)
        return whole + (self.fills_last_batch and remainder > 0)

    def normalise(self, images: Tensor, device: torch.device) -> Tensor:
        """Return uint8 images (n, c, h, w) as normalised float32 in channels-last memory format."""
        if device not in self._mean_and_std:
            # Created once: creating a tensor from plain values waits for a CUDA device.
            statistics = torch.tensor([self.info.mean, self.info.std], device=device)
            self._mean_and_std[device] = statistics[:, :, None, None]
        mean, std = self._mean_and_std[device]
        images = images.to(device, non_blocking=True).float() / 255.0
        return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def network_targets(targets: Tensor) -> Tensor:
    """Return targets in the type that a task takes: integers as int64, numbers as they are."""
    return targets if targets.is_floating_point() else targets.long()


def resize(images: Tensor, resolution: int | tuple[int, int]) -> Tensor:
    """Return images (n, c, h, w), floats, resized to a square or to (height, width), antialiased bilinear."""
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    if images.shape[-2:] == size:
        return images
    resized = F.interpolate(images, size, mode="bilinear", antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`; a copy to a CUDA device is asynchronous."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def check_split(split: str) -> None:
    """Raise the error for an unknown split name."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
