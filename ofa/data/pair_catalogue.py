"""`PairCatalogue`: all images of a folder with their masks that can be read, with sizes and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.catalogue import Catalogue
from ofa.data.header import Header
from ofa.data.headers import check_pictures
from ofa.data.mask_classes import find_classes, value_problems
from ofa.data.mask_headers import MaskHeader, check_masks
from ofa.data.mask_layout import MaskLayout
from ofa.data.pairs import Pairs, list_pairs, size_problems, unreadable_problems, unreadable_texts
from ofa.data.settings import DataSettings


@dataclass(frozen=True)
class PairCatalogue(Catalogue):
    """The images of a set, a row each, with their masks; an image has no class of its own: all labels are 0.

    Attributes:
        mask_paths: file of each mask.
        masks: sizes and values of each.
        class_names: names of the classes.
    """

    mask_paths: list[Path] = field(kw_only=True)
    masks: list[MaskHeader] = field(kw_only=True)
    class_names: tuple[str, ...] = field(kw_only=True)


def read_pairs(
    layout: MaskLayout, settings: DataSettings, progress: ProgressCallback = silent
) -> PairCatalogue:
    """List the images and masks of all folders, and check that they fit and can be read.

    Raises:
        UserError: naming everything that does not fit: files without their counterpart, files that cannot be
            read (unless they are to be skipped), sizes that differ, and values that are no class.
    """
    pairs = list_pairs(layout)
    images = check_pictures(layout.root, pairs.image_paths, progress)
    masks = check_masks(layout.root, pairs.mask_paths, progress)
    problems = pairs.problems + size_problems(pairs, images, masks)
    if settings.on_unreadable == "stop":
        problems += unreadable_problems(pairs, images, masks)
    class_names, class_problems = _classes(pairs, masks, settings)
    problems += class_problems
    if problems:
        raise UserError("\n".join([f"The images and masks in {layout.root} do not fit.", *problems]))
    readable = [
        (row, image, mask)
        for row, (image, mask) in enumerate(zip(images, masks, strict=True))
        if isinstance(image, Header) and isinstance(mask, MaskHeader)
    ]
    rows = [row for row, _, _ in readable]
    _check_splits(layout, pairs, rows)
    return PairCatalogue(
        paths=[pairs.image_paths[row] for row in rows],
        labels=np.zeros(len(rows), np.int64),
        folders=np.array(pairs.folders)[rows],
        sizes=np.array([(image.width, image.height) for _, image, _ in readable], np.int64),
        num_transparent=sum(image.is_transparent for _, image, _ in readable),
        unreadable=tuple(unreadable_texts(pairs, images, masks)),
        left_out=pairs.left_out,
        mask_paths=[pairs.mask_paths[row] for row in rows],
        masks=[mask for _, _, mask in readable],
        class_names=class_names,
    )


def _classes(
    pairs: Pairs, masks: Sequence[MaskHeader | str], settings: DataSettings
) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the classes, and texts about what is wrong with them; no names then."""
    readable = [mask for mask in masks if isinstance(mask, MaskHeader)]
    if not readable:
        return (), []
    try:
        class_names = find_classes(pairs.root, readable, settings.ignored_value)
    except UserError as error:
        return (), [str(error)]
    problems = value_problems(
        pairs, masks, num_classes=len(class_names), ignored_value=settings.ignored_value
    )
    return class_names, problems


def _check_splits(layout: MaskLayout, pairs: Pairs, rows: Sequence[int]) -> None:
    """Raise the error for folders in which no pair can be read."""
    readable = {pairs.folders[row] for row in rows}
    texts = [str(folder) for split, folder in layout.folders.items() if split not in readable]
    if texts:
        raise UserError(f"No image with its mask can be read in {', '.join(texts)}; replace the files.")
