"""`FileData`: images in files, decoded batch by batch in worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError
from ofa.data.base import ImageData, check_split, network_targets
from ofa.data.order import Rows, epoch_order
from ofa.data.photographs import Photographs, collate
from ofa.data.settings import DataInfo, DataSettings
from ofa.data.workers import BATCH_TIMEOUT_S, batches_of, ignore_stop_signals, plan_workers

# Mean and standard deviation of ImageNet's training images, the usual normalisation of photographs.
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Share of the short side that the centre crop keeps in evaluation.
CENTRE_SHARE = 0.875


class FileData(ImageData):
    """Photographs in files with their targets, split already."""

    def __init__(
        self,
        settings: DataSettings,
        info: DataInfo,
        splits: Mapping[str, Photographs],
        *,
        class_counts: Mapping[str, tuple[int, ...]],
        notes: Sequence[str],
    ) -> None:
        """Take the files; they are decoded batch by batch.

        Args:
            settings: augmentation and workers.
            info: properties of the images.
            splits: photographs of each split.
            class_counts: what `class_counts` returns for each split.
            notes: lines for the user.
        """
        super().__init__(info)
        self._settings, self._datasets = settings, splits
        self._class_counts, self._notes = class_counts, tuple(notes)
        self._labels = splits["train"].labels
        self._sizes = {split: photographs.sizes for split, photographs in splits.items()}
        self._remarks: set[str] = set()
        self._has_few_workers = False

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        return self._notes

    @property
    @override
    def balance(self) -> str:
        return self._settings.balance

    @property
    @override
    def fills_last_batch(self) -> bool:
        return self._settings.fill_last_batch

    @override
    def size(self, split: str) -> int:
        check_split(split)
        return len(self._datasets[split])

    @property
    @override
    def short_side(self) -> int:
        return int(np.median(self._sizes["train"].min(axis=1)))

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        check_split(split)
        return self._class_counts[split]

    def picture_sizes(self, split: str) -> Rows:
        """Return the width and height of each photograph of a split in pixels, as displayed: shape (n, 2)."""
        check_split(split)
        return self._sizes[split]

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
        num_batches = self.num_batches(batch_size)
        rng = np.random.default_rng([seed, epoch])
        num_images = max(self.size("train"), num_batches * batch_size)
        order = epoch_order(self._labels, rng, self._settings.balance, num_images)
        seeds = rng.integers(0, 2**31, num_images)
        items = list(zip(order.tolist(), seeds.tolist(), strict=True))
        part = world.local_slice(batch_size)
        plan = [items[i * batch_size : (i + 1) * batch_size][part] for i in range(first, num_batches)]
        for pixels, targets in self._load("train", plan, device):
            yield self.normalise(pixels, device), network_targets(targets)

    @override
    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        check_split(split)
        items = [(position, None) for position in range(self.size(split))[:limit]]
        plan = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        for pixels, targets in self._load(split, plan, device):
            yield pixels.to(device, non_blocking=True), targets

    def _load(
        self, split: str, plan: Sequence[Sequence[tuple[int, int | None]]], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The dataset is indexed by (position, seed) pairs; DataLoader's type hints only allow integers.
        batches: Any = plan
        batch_bytes = max(map(len, plan), default=0) * self._datasets[split].item_bytes
        workers = plan_workers(self._settings.workers, len(plan), batch_bytes)
        if workers.remark and not self._has_few_workers:
            self._has_few_workers = True
            self._warn([workers.remark])
        loader: DataLoader[Any] = DataLoader(
            self._datasets[split],
            batch_sampler=batches,
            num_workers=workers.num_workers,
            prefetch_factor=workers.prefetch,
            timeout=BATCH_TIMEOUT_S if workers.num_workers else 0,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            # Without its own generator the loader draws from the global one.
            generator=torch.Generator(),
            worker_init_fn=ignore_stop_signals,
        )
        for batch in batches_of(loader):
            if isinstance(batch, UserError):
                raise batch
            self._warn(batch.remarks)
            yield batch.pixels, batch.targets.to(device, non_blocking=True)

    def _warn(self, remarks: Sequence[str]) -> None:
        """Warn of each thing once."""
        for remark in remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                warnings.warn(remark, stacklevel=2)
