"""Photographs as a dataset: decoded one by one, in worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ofa.common.errors import UserError
from ofa.data.augment import Augmentation, to_tensor
from ofa.data.order import Rows
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.settings import DataSettings
from ofa.data.shrunk import ShrunkCopies, shrunk_side
from ofa.data.views import centre_view
from ofa.data.workers import sendable

Size = tuple[int, int]


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph, uint8 (3, size, size), its target, and a text if another file took its place.

    The target is a label, or a mask, uint8 (size, size).
    """

    pixels: Tensor
    target: int | Tensor
    remark: str = ""


@dataclass(frozen=True)
class Batch:
    """Pixels, uint8 (n, 3, size, size), targets, and remarks for the user.

    Targets are labels, int64 (n,), or masks, uint8 (n, size, size).
    """

    pixels: Tensor
    targets: Tensor
    remarks: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, as a loader asks."""
        return Batch(self.pixels.pin_memory(), self.targets.pin_memory(), self.remarks)


class Photographs(Dataset[Any]):
    """The photographs of a split; its items are (position, seed) pairs, and seed None means no augmentation.

    An item is a `Photograph`, or the `UserError` of one that cannot be read: errors would lose their
    type on the way out of a worker process.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        sizes: Sequence[Size],
        settings: DataSettings,
        *,
        mean: tuple[float, ...],
        centre_share: float,
    ) -> None:
        """Take the files.

        Args:
            paths: file of each photograph.
            labels: class of each; where one cannot be read, another one of its class takes its place.
            sizes: width and height of each in pixels as displayed.
            settings: augmentation, size of the images, and cache.
            mean: mean of the pixels (0..1) per channel; fills what is erased.
            centre_share: share of the short side kept in evaluation.

        Raises:
            UserError: if the cache cannot be written.
        """
        self._paths, self._labels, self._sizes = [str(path) for path in paths], list(labels), list(sizes)
        self._image_size = settings.image_size
        self._augmentation = Augmentation(settings, mean)
        self._centre = partial(centre_view, size=settings.image_size, share=centre_share)
        self._can_skip = settings.on_unreadable == "skip"
        self._copies: ShrunkCopies | None = None
        if settings.cache is not None:
            short_side = shrunk_side(settings.image_size, settings.crop_scale)
            self._copies = ShrunkCopies(settings.cache, short_side)

    def check_cache(self) -> str:
        """Return a line for the user on the room that the cache needs, or an empty one.

        Raises:
            UserError: if the disk clearly has too little room.
        """
        return "" if self._copies is None else self._copies.check_room(self._paths, self._sizes)

    @property
    def labels(self) -> Rows:
        """Class of each photograph, shape (n,)."""
        return np.array(self._labels, np.int64)

    @property
    def sizes(self) -> Rows:
        """Width and height of each in pixels as displayed, shape (n, 2)."""
        return np.array(self._sizes, np.int64).reshape(-1, 2)

    @property
    def item_bytes(self) -> int:
        """Size of the pixels of an item, with its mask if there is one."""
        return 3 * self._image_size**2

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, item: tuple[int, int | None]) -> Photograph | UserError:
        position, seed = item
        try:
            return Photograph(*self._read(position, seed))
        except UnreadableError as error:
            return self._substitute(position, seed, error) if self._can_skip else error
        except UserError as error:
            return error

    def _read(self, position: int, seed: int | None) -> tuple[Tensor, int | Tensor]:
        """Return pixels and target of a photograph.

        Raises:
            UnreadableError: if it cannot be read.
            UserError: if a copy of it cannot be written.
        """
        return self._pixels(position, seed), self._labels[position]

    def _pixels(self, position: int, seed: int | None) -> Tensor:
        path = self._paths[position]
        if seed is None:
            return to_tensor(read_picture(path, self._centre))
        if self._copies is None:
            return self._augmentation.read(path, seed)
        copy = self._copies.copy_of(path, self._sizes[position])
        try:
            return self._augmentation.read(copy, seed)
        except UnreadableError:
            if copy == path:
                raise
            return self._augmentation.read(self._copies.remake(path), seed)

    def _substitute(self, position: int, seed: int | None, error: UnreadableError) -> Photograph | UserError:
        """Return the next photograph of the same class that can be read, or the error if there is none."""
        for other in self._others(position):
            try:
                pixels, target = self._read(other, seed)
            except UnreadableError:
                continue
            file = self._paths[other]
            remark = f"{error.path} cannot be read any more ({error.reason}); {file} takes its place."
            return Photograph(pixels, target, remark)
        return error

    def _others(self, position: int) -> Iterator[int]:
        count = len(self._paths)
        for step in range(1, count):
            other = (position + step) % count
            if self._labels[other] == self._labels[position]:
                yield other


def collate(items: Sequence[Photograph | UserError]) -> Batch | UserError:
    """Return the batch of the items, or the first error among them or in handing the batch over."""
    photographs: list[Photograph] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        photographs.append(item)
    remarks = tuple(photograph.remark for photograph in photographs if photograph.remark)
    try:
        pixels = sendable(torch.stack([photograph.pixels for photograph in photographs]))
        targets = sendable(torch.stack([torch.as_tensor(photograph.target) for photograph in photographs]))
    except UserError as error:
        return error
    return Batch(pixels, targets, remarks)
