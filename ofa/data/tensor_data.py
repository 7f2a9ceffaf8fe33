"""`TensorData`: images in memory whose targets are tensors of any shape, for tasks of the user's own."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.data.base import check_split
from ofa.data.memory import RowData
from ofa.data.settings import CLASSIFICATION, DataSettings, refuse_settings


class TensorData(RowData):
    """Images and their targets, one row of a tensor for each image.

    A row may be a box, several boxes that are padded to the same number, key points, or numbers; integers, or
    floating point. Images are not changed in training, because nothing here knows how a target would change.
    """

    def __init__(
        self,
        settings: DataSettings,
        class_names: tuple[str, ...],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        task: str = CLASSIFICATION,
    ) -> None:
        """Cut the validation split from `train`, as `MemoryData` does.

        Args:
            settings: settings of the split.
            class_names: what the network tells apart; may be empty.
            train: uint8 images (n, c, h, w) and their targets (n, ...).
            test: the same for the test split.
            task: what is told of an image; see `DataInfo.task`.

        Raises:
            UserError: for images and targets of other numbers or types; if the split cannot be cut, or a
                setting is one of images that have a class, or are changed.
        """
        names = ("balance", "stratified", "crop_padding", "horizontal_flip")
        reason = f"only for images of one class each; {settings.name} has targets of its own."
        refuse_settings(settings, names, reason)
        problems = [*_problems("train", *train), *_problems("test", *test)]
        if not problems and train[0].shape[1] != test[0].shape[1]:
            problems.append(f"train has {train[0].shape[1]} channels, test has {test[0].shape[1]}.")
        if problems:
            raise UserError("\n".join(problems))
        super().__init__(settings, class_names, train, test, task)

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        check_split(split)
        return ()


def _problems(split: str, images: Tensor, targets: Tensor) -> list[str]:
    """Return what is wrong with the tensors of a split."""
    problems = []
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {tuple(images.shape)}"
        problems.append(f"The {split} images are {found}; expected uint8 (images, channels, height, width).")
    if targets.ndim < 1 or len(targets) != len(images):
        problems.append(
            f"The {split} targets are {tuple(targets.shape)} for {len(images)} images; expected a row for "
            "each."
        )
    return problems
