"""`MaskData`: images whose targets are a class for each pixel, held in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.data.base import check_split
from ofa.data.memory import RowData
from ofa.data.settings import SEGMENTATION, DataSettings
from ofa.data.shifts import Change

IGNORED = 255
"""Label of pixels that count neither in a loss nor in a metric."""


def mask_problems(settings: DataSettings) -> list[str]:
    """Return a text for each setting that takes an image to have one class."""
    problems = []
    if settings.balance == "sampling":
        problems.append(
            "data.balance is sampling, but images with masks are of no class; expected none, or loss, which "
            "weights the classes by their pixels."
        )
    if settings.stratified:
        problems.append("data.stratified is true, but images with masks are of no class; expected false.")
    return problems


class MaskData(RowData):
    """Images with masks: batches (images, masks), masks int64 (n, h, w), changed like their images."""

    def __init__(
        self,
        settings: DataSettings,
        class_names: tuple[str, ...],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
    ) -> None:
        """Take images, uint8 (n, c, h, w), and masks, uint8 (n, h, w), of classes and `IGNORED`.

        Raises:
            UserError: if a setting is none for masks.
        """
        problems = mask_problems(settings)
        if problems:
            raise UserError("\n".join(problems))
        super().__init__(settings, class_names, train, test, SEGMENTATION)

    @override
    def _changed(self, targets: Tensor, change: Change) -> Tensor:
        return change(targets[:, None], fill=IGNORED)[:, 0].long()

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        """Return the number of pixels of each class in a split."""
        check_split(split)
        counts = torch.bincount(self._splits[split][1].cpu().flatten(), minlength=IGNORED + 1)
        return tuple(counts[: self.num_classes].tolist())
