"""Photographs in folders, one folder per class, decoded by worker processes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import SPLITS, ImageData, check_split
from ofa.data.catalogue import Catalogue, read_catalogue
from ofa.data.layout import Layout, find_layout
from ofa.data.notes import folder_notes
from ofa.data.order import Rows, epoch_order
from ofa.data.photographs import Photographs, collate
from ofa.data.settings import DataInfo, DataSettings
from ofa.data.splits import cut_split
from ofa.data.workers import BATCH_TIMEOUT_S, batches_of, ignore_stop_signals, plan_workers

# Mean and standard deviation of ImageNet's training images, the usual normalisation of photographs.
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Share of the short side that the centre crop keeps in evaluation.
CENTRE_SHARE = 0.875


class FolderData(ImageData):
    """Photographs in a folder per class; `find_layout` says which folders, `cut_split` what is cut."""

    def __init__(self, settings: DataSettings, progress: ProgressCallback = silent) -> None:
        """List and check the files; they are decoded batch by batch.

        Args:
            settings: folder, splits and augmentation.
            progress: called while the files are checked.

        Raises:
            UserError: if a folder is missing or empty, there is a single class, the classes of two folders
                differ, files cannot be read, a split cannot be cut, or the cache has too little room.
        """
        layout = find_layout(settings)
        catalogue = read_catalogue(layout, settings, progress)
        self._settings, self._layout = settings, layout
        self._rows = _split_rows(layout, catalogue, settings)
        self._labels = {split: catalogue.labels[self._rows[split]] for split in SPLITS}
        self._sizes = {split: catalogue.sizes[self._rows[split]] for split in SPLITS}
        self._datasets = {split: self._dataset(split, catalogue) for split in SPLITS}
        super().__init__(DataInfo(settings.name, 3, layout.class_names, PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE))
        counts = {split: self.class_counts(split) for split in SPLITS}
        cache_note = self._datasets["train"].check_cache()
        self._notes = (*folder_notes(layout, catalogue, counts), *([cache_note] if cache_note else []))
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
        return len(self._rows[split])

    @property
    @override
    def short_side(self) -> int:
        return int(np.median(self._sizes["train"].min(axis=1)))

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        check_split(split)
        return tuple(np.bincount(self._labels[split], minlength=self.num_classes).tolist())

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
        order = epoch_order(self._labels["train"], rng, self._settings.balance, num_images)
        seeds = rng.integers(0, 2**31, num_images)
        items = list(zip(order.tolist(), seeds.tolist(), strict=True))
        part = world.local_slice(batch_size)
        plan = [items[i * batch_size : (i + 1) * batch_size][part] for i in range(first, num_batches)]
        for pixels, labels in self._load("train", plan, device):
            yield self.normalise(pixels, device), labels

    @override
    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        check_split(split)
        items = [(position, None) for position in range(self.size(split))[:limit]]
        plan = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        for pixels, labels in self._load(split, plan, device):
            yield pixels.to(device, non_blocking=True), labels

    def _load(
        self, split: str, plan: Sequence[Sequence[tuple[int, int | None]]], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The dataset is indexed by (position, seed) pairs; DataLoader's type hints only allow integers.
        batches: Any = plan
        batch_bytes = max(map(len, plan), default=0) * 3 * self._settings.image_size**2
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
            yield batch.pixels, batch.labels.to(device, non_blocking=True)

    def _warn(self, remarks: Sequence[str]) -> None:
        """Warn of each thing once."""
        for remark in remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                warnings.warn(remark, stacklevel=2)

    def _dataset(self, split: str, catalogue: Catalogue) -> Photographs:
        return Photographs(
            [catalogue.paths[row] for row in self._rows[split]],
            self._labels[split].tolist(),
            [(width, height) for width, height in self._sizes[split].tolist()],
            self._settings,
            mean=PHOTO_MEAN,
            centre_share=CENTRE_SHARE,
        )


def _split_rows(layout: Layout, catalogue: Catalogue, settings: DataSettings) -> dict[str, list[int]]:
    """Return the rows of each split in a fixed shuffle, so that the first ones are a fair sample."""
    rows = {split: np.flatnonzero(catalogue.folders == split).tolist() for split in SPLITS}
    labels, root = catalogue.labels.tolist(), layout.root
    # By a hash of the name, so that removing a file moves hardly any other file between the splits.
    for split in SPLITS:
        rows[split].sort(key=lambda row: _digest(catalogue.paths[row].relative_to(root), settings.split_seed))
    # Half of a small class stays for training: a quarter goes to each of two splits, or half to a single one.
    shares = {"test": 1 / 4, "validation": 1 / 2 if "test" in layout.folders else 1 / 3}
    for split, size in (("test", settings.test_size), ("validation", settings.validation_size)):
        if split not in layout.folders:
            rows[split], rows["train"] = cut_split(
                labels,
                rows["train"],
                size,
                stratified=settings.stratified,
                name=f"data.{split}_size",
                source=str(layout.folders["train"]),
                max_share=shares[split],
            )
    return rows


def _digest(path: Path, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{path.as_posix()}".encode("utf-8", "surrogateescape")).digest()


def folder_classes(settings: DataSettings) -> tuple[str, ...]:
    """Return the class names of a folder of photographs: the names of its class folders.

    Raises:
        UserError: if a folder is missing, there are fewer than two classes, or two folders differ in them.
    """
    return find_layout(settings).class_names
