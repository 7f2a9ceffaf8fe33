"""Splits that are cut from one set of images: in a given order, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa.common.errors import UserError
from ofa.data.settings import SplitSize

Counts = npt.NDArray[np.int64]

DEFAULT_SHARE, DEFAULT_MIN_PER_CLASS, DEFAULT_MAX = 0.2, 20, 10_000


def cut_split(
    labels: Sequence[int],
    order: Sequence[int],
    size: SplitSize,
    *,
    stratified: bool,
    name: str,
    source: str,
    max_share: float = 0.5,
) -> tuple[list[int], list[int]]:
    """Return the rows of a split and the remaining rows, both in the given order.

    A stratified split takes the first rows of every class in that order, so that an image that is removed
    moves at most one other image of a class. Otherwise it takes the first rows of all.

    Args:
        labels: class of every row.
        order: rows that are split.
        size: number of rows, share of each class, or None; see `class_quotas`.
        stratified: whether every class gives its part.
        name: setting that holds `size`, for error texts.
        source: origin of the images, for error texts.
        max_share: largest share of a class that a `size` of None takes.

    Raises:
        UserError: if the split would be empty, or leave nothing to train on.
    """
    row_labels = np.asarray(labels, np.int64)[np.asarray(order, np.int64)]
    counts = np.bincount(row_labels)
    if not stratified and isinstance(size, int):
        if size >= len(order):
            raise UserError(
                f"{name} is {size} but {source} holds {len(order)} images; choose a smaller {name}."
            )
        return list(order[:size]), list(order[size:])
    quotas = class_quotas(counts, size, name=name, source=source, max_share=max_share)
    if not stratified:
        total = int(quotas.sum())
        return list(order[:total]), list(order[total:])
    parts: tuple[list[int], list[int]] = ([], [])
    for row, label in zip(order, row_labels.tolist(), strict=True):
        is_cut = quotas[label] > 0
        quotas[label] -= is_cut
        parts[0 if is_cut else 1].append(row)
    return parts


def class_quotas(
    counts: Counts, size: SplitSize, *, name: str, source: str, max_share: float = 0.5
) -> Counts:
    """Return how many images of each class a split takes; a class keeps an image at least.

    Args:
        counts: images per class.
        size: a number is shared out in proportion, with at least one image of a class that has two; a share
            is taken of every class; None takes 20 % of a class, or 20 images if that is more, but at most
            `max_share` of the class and 10,000 in all.
        name: setting that holds `size`, for error texts.
        source: origin of the images, for error texts.
        max_share: largest share of a class that a `size` of None takes; at least 20 %.

    Raises:
        UserError: if the number cannot be shared out like this, or no class has two images.
    """
    maximum = np.maximum(counts - 1, 0)
    minimum = np.minimum(maximum, 1)
    if not minimum.any():
        raise UserError(
            f"No class of {source} has two images, so no {name.rpartition('.')[2].removesuffix('_size')} "
            "images can be cut; add images."
        )
    if isinstance(size, int):
        lowest, highest = int(minimum.sum()), int(maximum.sum())
        if not lowest <= size <= highest:
            raise UserError(
                f"{name} is {size} but {source} holds {counts.sum()} images of {np.count_nonzero(counts)} "
                f"classes; expected {lowest} to {highest}, so that every class is in both parts."
            )
        return _shared_out(size, counts, minimum, maximum)
    if size is not None:
        return np.clip(_rounded(size * counts), minimum, maximum)
    at_least = np.minimum(DEFAULT_MIN_PER_CLASS, np.floor(max_share * counts + 1e-9).astype(np.int64))
    quotas: Counts = np.maximum(_rounded(DEFAULT_SHARE * counts), at_least)
    if quotas.sum() <= DEFAULT_MAX:
        return quotas
    return _shared_out(DEFAULT_MAX, quotas, np.minimum(quotas, 1), quotas)


def _rounded(values: npt.NDArray[np.floating]) -> Counts:
    return np.array([round(value) for value in values.tolist()], np.int64)


def _shared_out(total: int, weights: Counts, minimum: Counts, maximum: Counts) -> Counts:
    """Return whole parts of `total` in proportion to `weights`, by the largest remainders within bounds."""
    ideal = total * weights / weights.sum()
    parts: Counts = np.clip(np.floor(ideal).astype(np.int64), minimum, maximum)
    while difference := total - int(parts.sum()):
        step = 1 if difference > 0 else -1
        is_open = parts < maximum if step > 0 else parts > minimum
        if not is_open.any():
            break
        parts[np.argmax(np.where(is_open, step * (ideal - parts), -np.inf))] += step
    return parts
