"""The classes of masks: their names, and the label of each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ofa.common.errors import UserError
from ofa.data.mask_files import MaskError, Values
from ofa.data.mask_headers import NUM_VALUES, MaskHeader, total_counts
from ofa.data.mask_layout import CLASSES_FILE, read_class_names
from ofa.data.masks import IGNORED
from ofa.data.pairs import Pairs, problem_text


class LabelTable:
    """The label of each value of a mask: a class, `IGNORED`, or none."""

    def __init__(self, num_classes: int, ignored_value: int) -> None:
        """Take the number of classes, and the value that is ignored beside `IGNORED`."""
        self._num_classes = num_classes
        self._table = np.full(NUM_VALUES, -1, np.int16)
        self._table[:num_classes] = np.arange(num_classes)
        self._table[[ignored_value, IGNORED]] = IGNORED

    def labels(self, values: Values) -> Values:
        """Return the labels of values of any shape, uint8.

        Raises:
            MaskError: if there are others.
        """
        labels = self._table[values]
        if (labels < 0).any():
            unknown = np.unique(values[labels < 0]).tolist()
            raise MaskError(f"the value {unknown[0]} is no class")
        return labels.astype(np.uint8)

    def unknown_values(self, header: MaskHeader) -> list[int]:
        """Return the values of a mask that have no label."""
        return [value for value, _ in header.pixel_counts if self._table[value] < 0]

    def is_empty(self, header: MaskHeader) -> bool:
        """Return whether all pixels of a mask are ignored."""
        return all(self._table[value] == IGNORED for value, _ in header.pixel_counts)

    def class_counts(self, headers: Iterable[MaskHeader]) -> tuple[int, ...]:
        """Return the number of pixels of each class in several masks."""
        is_class = self._table[: self._num_classes] != IGNORED
        return tuple((total_counts(headers)[: self._num_classes] * is_class).tolist())


def find_classes(root: Path, masks: Sequence[MaskHeader], ignored_value: int) -> tuple[str, ...]:
    """Return the names of the classes: those of `classes.txt`, or else the values up to the largest.

    Args:
        root: folder of the set.
        masks: all masks.
        ignored_value: value that is no class, beside `IGNORED`.

    Raises:
        UserError: if the file is no list of names, or fewer than two values occur that are not ignored.
            Values without a name are left to `value_problems`.
    """
    names = read_class_names(root)
    totals = total_counts(masks)
    has_white = bool(totals[IGNORED])
    totals[[ignored_value, IGNORED]] = 0
    values = np.flatnonzero(totals).tolist()
    if len(values) < 2:
        ignored_text = " and ".join(map(str, sorted({ignored_value, IGNORED})))
        values_text = f"only the class {values[0]}" if values else "no class"
        advice = f" In masks of black and white, write 1 for white: {IGNORED} is ignored." * has_white
        raise UserError(
            f"The masks have {values_text} beside what is ignored ({ignored_text}); expected two classes at "
            f"least.{advice}"
        )
    return names or tuple(map(str, range(values[-1] + 1)))


def value_problems(
    pairs: Pairs, masks: Sequence[MaskHeader | str], *, num_classes: int, ignored_value: int
) -> list[str]:
    """Return the text about masks with values that are no class; none if there are none."""
    table, texts = LabelTable(num_classes, ignored_value), []
    for path, mask in zip(pairs.mask_paths, masks, strict=True):
        values = [] if isinstance(mask, str) else table.unknown_values(mask)
        if values:
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            texts.append(f"{pairs.name(path)}: {', '.join(map(str, values[:3]))}{more}")
    advice = (
        f"Expected 0 to {num_classes - 1}, the lines of {CLASSES_FILE}, or {IGNORED}, which is ignored; "
        "data.ignored_value names another value that is."
    )
    return problem_text("Masks with values that are no class", texts, advice)
