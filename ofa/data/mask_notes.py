"""Lines for the user about a folder of images and masks: classes, splits, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ofa.data.listing import left_out_note
from ofa.data.mask_classes import LabelTable
from ofa.data.mask_layout import IMAGES, MaskLayout
from ofa.data.notes import (
    MAX_LISTED_CLASSES,
    MAX_LISTED_FILES,
    listed,
    split_line,
    transparency_line,
    unused_line,
)
from ofa.data.pair_catalogue import PairCatalogue


def mask_notes(
    layout: MaskLayout,
    catalogue: PairCatalogue,
    table: LabelTable,
    *,
    sizes: Mapping[str, int],
    train_counts: Sequence[int],
) -> tuple[str, ...]:
    """Return the lines about a folder.

    Args:
        layout: folders of the set.
        catalogue: its images and masks.
        table: labels of the values.
        sizes: number of images of each split.
        train_counts: pixels of each class in the training masks.
    """
    names = catalogue.class_names
    counts = table.class_counts(catalogue.masks)
    num_pixels = sum(mask.width * mask.height for mask in catalogue.masks)
    missing_names = [name for name, count in zip(names, train_counts, strict=True) if not count]
    empty_names = [
        path.relative_to(layout.root).as_posix()
        for path, mask in zip(catalogue.mask_paths, catalogue.masks, strict=True)
        if table.is_empty(mask)
    ]
    lines = [
        f"{len(catalogue.paths)} images with masks of {len(names)} classes: {_shares_text(names, counts)}"
    ]
    if num_ignored := num_pixels - sum(counts):
        lines.append(f"{_percent(num_ignored / num_pixels)} of the pixels are ignored")
    lines.append(split_line(layout, sizes))
    if missing_names:
        lines.append(f"no pixel for training of {listed(missing_names, MAX_LISTED_CLASSES)}")
    if empty_names:
        lines.append(
            f"{len(empty_names)} masks whose pixels are all ignored: {listed(empty_names, MAX_LISTED_FILES)}"
        )
    train = layout.folders["train"]
    lines.append(left_out_note(catalogue.left_out))
    lines.append(unused_line(layout.unused, IMAGES if train == layout.root else train.name))
    if catalogue.unreadable:
        lines.append(
            f"{len(catalogue.unreadable)} files that cannot be read, their pairs skipped: "
            f"{listed(catalogue.unreadable, MAX_LISTED_FILES)}"
        )
    lines.append(transparency_line(catalogue))
    return tuple(line for line in lines if line)


def _shares_text(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return the shares of the labelled pixels of the classes that occur, the rarest first."""
    rows = [row for row in np.argsort(counts, kind="stable").tolist() if counts[row]]
    texts = [f"{names[row]} {_percent(counts[row] / sum(counts))}" for row in rows]
    if len(texts) <= MAX_LISTED_CLASSES:
        return ", ".join(texts)
    return f"{', '.join(texts[: MAX_LISTED_CLASSES - 1])}, … {texts[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 1e-5 else "less than 0.001 %"
