"""`ValueData`: images in memory with labels or numbers, and what both kinds of such sets share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.data.base import check_split
from ofa.data.memory import RowData
from ofa.data.settings import REGRESSION, DataSettings
from ofa.data.table_targets import constant_columns, label_counts
from ofa.data.target_scale import TargetScale


class ValueData(RowData):
    """Images with targets (n, names): labels, int8, or numbers, float64; see `ImageData`.

    An image has no class of its own. `class_counts` counts the images that have each label.
    """

    def __init__(
        self,
        settings: DataSettings,
        names: tuple[str, ...],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        task: str,
    ) -> None:
        """Take images, uint8 (n, c, h, w), and targets (n, names); arguments as in `MemoryData`.

        Raises:
            UserError: if a setting is none for labels or numbers, or a column of numbers tells nothing.
        """
        if problems := value_problems(settings, task):
            raise UserError("\n".join(problems))
        super().__init__(settings, names, train, test, task)
        if task == REGRESSION:
            scale = scale_of(self._splits["train"][1], names)
            self.info = dataclasses.replace(self.info, target_scale=scale)

    @override
    def class_counts(self, split: str) -> tuple[int, ...]:
        counts = self._counts(split)
        return () if counts is None else counts[0]

    @override
    def negative_counts(self, split: str) -> tuple[int, ...] | None:
        counts = self._counts(split)
        return None if counts is None else counts[1]

    def _counts(self, split: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        check_split(split)
        return None if self.info.task == REGRESSION else label_counts(self._splits[split][1].cpu())


def scale_of(values: Tensor, names: Sequence[str]) -> TargetScale:
    """Return the mean and standard deviation of the known numbers of training images.

    Args:
        values: numbers (n, columns), float64, NaN where unknown.
        names: names of the columns.

    Raises:
        UserError: if all numbers of a column are equal, or unknown.
    """
    if constant := constant_columns(values, names):
        raise UserError(
            f"All training images have the same number, or none, in {', '.join(map(repr, constant))}; "
            "nothing can be learnt from that. Remove the column, or add images."
        )
    columns = [column[~column.isnan()] for column in values.cpu().T]
    means = tuple(float(column.mean()) for column in columns)
    return TargetScale(means, tuple(float(column.std(correction=0)) for column in columns))


def value_problems(settings: DataSettings, task: str) -> list[str]:
    """Return a text for each setting that takes an image to have one class."""
    kind, problems = ("numbers" if task == REGRESSION else "labels"), list[str]()
    if settings.balance == "sampling" or (settings.balance == "loss" and task == REGRESSION):
        weighted = "" if task == REGRESSION else ", or loss, which weights images with rare labels"
        problems.append(
            f"data.balance is {settings.balance}, but images with {kind} are of no class; expected "
            f"none{weighted}."
        )
    if settings.stratified:
        problems.append(f"data.stratified is true, but images with {kind} are of no class; expected false.")
    return problems
