"""`MaskedPhotographs`: photographs as a dataset whose targets are their masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from ofa.data.augment import Placement, to_tensor
from ofa.data.mask_classes import LabelTable
from ofa.data.mask_files import MaskError, Values, read_mask
from ofa.data.photographs import Photographs, Size
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.settings import DataSettings
from ofa.data.views import ViewOf, fixed_view


class MaskedPhotographs(Photographs):
    """Photographs and their masks, which are cropped and mirrored alike; see `Photographs`."""

    def __init__(
        self,
        paths: Sequence[Path],
        mask_paths: Sequence[Path],
        sizes: Sequence[Size],
        *,
        table: LabelTable,
        settings: DataSettings,
        mean: tuple[float, ...],
        centre_share: float,
    ) -> None:
        """Take the files.

        Args:
            paths: file of each photograph.
            mask_paths: file of each mask.
            sizes: width and height of each in pixels as displayed.
            table: labels of the values of masks.
            settings: augmentation and size of the images.
            mean: mean of the pixels (0..1) per channel.
            centre_share: share of the short side kept in evaluation.
        """
        # All of one class: where one cannot be read, any other takes its place.
        super().__init__(paths, [0] * len(paths), sizes, settings, mean=mean, centre_share=centre_share)
        self._mask_paths, self._table = [str(path) for path in mask_paths], table

    @property
    @override
    def item_bytes(self) -> int:
        return super().item_bytes // 3 * 4

    @override
    def _read(self, position: int, seed: int | None) -> tuple[Tensor, Tensor]:
        size = self._sizes[position]
        placement = Placement(self._centre(*size))
        if seed is not None:
            placement = self._augmentation.placement(*size, seed)
        # Files that have changed since they were listed would not fit any more.
        view_of = partial(fixed_view, view=placement.view, size=size)
        pixels = to_tensor(read_picture(self._paths[position], view_of))
        labels = torch.from_numpy(self._labels_in(self._mask_paths[position], view_of))
        return (pixels.flip(-1), labels.flip(-1)) if placement.is_mirrored else (pixels, labels)

    def _labels_in(self, path: str, view_of: ViewOf) -> Values:
        values = read_mask(path, view_of)
        try:
            return self._table.labels(values)
        except MaskError as error:
            raise UnreadableError(path, str(error)) from error
