"""Image sets that fit in memory: uint8 tensors, augmented per batch on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.data.base import ImageData, check_split, network_targets, send
from ofa.data.order import epoch_order
from ofa.data.settings import CLASSIFICATION, DataInfo, DataSettings, refuse_settings
from ofa.data.shifts import Change
from ofa.data.splits import cut_split


class MemoryData(ImageData):
    """Train, validation and test images as uint8 tensors."""

    def __init__(
        self,
        settings: DataSettings,
        class_names: tuple[str, ...],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        task: str = CLASSIFICATION,
    ) -> None:
        """Cut the validation split from `train` in a fixed shuffled order, and compute mean and std.

        Args:
            settings: settings of split and augmentation.
            class_names: name of each label.
            train: uint8 images (n, c, h, w) and their targets: int64 labels (n,).
            test: the same for the test split.
            task: what is told of an image; see `DataInfo.task`.

        Raises:
            UserError: if the split cannot be cut, or a setting is one of photographs only.
        """
        _check_settings(settings)
        images, targets = train
        labels = self._labels_of(targets)
        validation_rows, train_rows = cut_split(
            labels.tolist(),
            np.random.default_rng(settings.split_seed).permutation(len(images)).tolist(),
            settings.validation_size,
            stratified=settings.stratified,
            name="validation_size",
            source=f"the training set of {settings.name}",
        )
        validation_indices, train_indices = torch.tensor(validation_rows), torch.tensor(train_rows)
        self._splits = {
            "train": (images[train_indices], targets[train_indices]),
            "validation": (images[validation_indices], targets[validation_indices]),
            "test": test,
        }
        self._settings, self._labels = settings, labels[train_indices].numpy()
        values = images[train_indices].double() / 255.0
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
        statistics = tuple(mean.tolist()), tuple(std.tolist())
        super().__init__(DataInfo(settings.name, images.shape[1], class_names, *statistics, task=task))

    def _labels_of(self, targets: Tensor) -> Tensor:
        """Return the class of each image (n,), by which splits are cut and rare classes balanced."""
        return targets

    @override
    def size(self, split: str) -> int:
        check_split(split)
        return len(self._splits[split][0])

    @property
    @override
    def balance(self) -> str:
        return self._settings.balance

    @property
    @override
    def fills_last_batch(self) -> bool:
        return self._settings.fill_last_batch

    @property
    @override
    def is_in_memory(self) -> bool:
        return True

    @property
    @override
    def short_side(self) -> int:
        return min(self._splits["train"][0].shape[-2:])

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        check_split(split)
        counts = torch.bincount(self._splits[split][1].cpu(), minlength=self.num_classes)
        return tuple(counts.tolist())

    @override
    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        device: torch.device,
        first: int = 0,
        world: World = SINGLE_PROCESS,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, targets = self._on(device, "train")
        num_batches = self.num_batches(batch_size)
        order_rng = np.random.default_rng([seed, epoch])
        positions = epoch_order(self._labels, order_rng, self._settings.balance, num_batches * batch_size)
        order = torch.from_numpy(positions)
        for batch in range(first, num_batches):
            part = world.local_slice(batch_size)
            rows = send(order[batch * batch_size : (batch + 1) * batch_size][part], device)
            change = Change(self._settings, np.random.default_rng([seed, epoch, batch]), batch_size, part)
            yield self.normalise(change(images[rows]), device), self._changed(targets[rows], change)

    def _changed(self, targets: Tensor, change: Change) -> Tensor:
        """Return the targets of images that were changed."""
        return targets

    @override
    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        check_split(split)
        images, labels = self._on(device, split)
        stop = len(images) if limit is None else min(limit, len(images))
        for start in range(0, stop, batch_size):
            part = slice(start, min(start + batch_size, stop))
            yield images[part], labels[part]

    def _on(self, device: torch.device, split: str) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a split on the device; they are copied once."""
        images, labels = self._splits[split]
        self._splits[split] = images.to(device), labels.to(device)
        return self._splits[split]


class RowData(MemoryData):
    """Images in memory whose targets are rows of any kind, so that an image has no class of its own."""

    @override
    def _labels_of(self, targets: Tensor) -> Tensor:
        return torch.zeros(len(targets), dtype=torch.int64)

    @override
    def _changed(self, targets: Tensor, change: Change) -> Tensor:
        return network_targets(targets)


def _check_settings(settings: DataSettings) -> None:
    """Refuse settings that only images from folders have.

    Raises:
        UserError: naming each of them.
    """
    names = ("test_size", "augment", "random_erasing", "on_unreadable", "cache", "ignored_value", "table")
    reason = (
        f"only for photographs in folders; {settings.name} is held in memory and has its own test images. It "
        "takes crop_padding, horizontal_flip and balance."
    )
    refuse_settings(settings, names, reason)
