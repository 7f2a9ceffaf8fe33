"""`MaskFolderData`: photographs in a folder with a mask for each, decoded by worker processes."""

from __future__ import annotations

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import SPLITS
from ofa.data.file_data import CENTRE_SHARE, PHOTO_MEAN, PHOTO_STD, FileData
from ofa.data.folder_splits import split_rows
from ofa.data.mask_classes import LabelTable
from ofa.data.mask_layout import find_mask_layout, read_class_names
from ofa.data.mask_notes import mask_notes
from ofa.data.masked_photographs import MaskedPhotographs
from ofa.data.masks import mask_problems
from ofa.data.pair_catalogue import read_pairs
from ofa.data.settings import SEGMENTATION, DataInfo, DataSettings


class MaskFolderData(FileData):
    """Photographs with masks: batches (images, masks), masks int64 (n, h, w) of classes and `IGNORED`.

    `find_mask_layout` says which folders, `split_rows` what is cut. `class_counts` counts pixels.
    """

    def __init__(self, settings: DataSettings, progress: ProgressCallback = silent) -> None:
        """List and check the files; they are decoded batch by batch.

        Args:
            settings: folder, splits and augmentation.
            progress: called while the files are checked.

        Raises:
            UserError: if a folder is missing or empty, images and masks do not fit or cannot be read, a split
                cannot be cut, or a setting is none for masks.
        """
        _check_settings(settings)
        layout = find_mask_layout(settings)
        catalogue = read_pairs(layout, settings, progress)
        rows = split_rows(layout, catalogue, settings)
        table = LabelTable(len(catalogue.class_names), settings.ignored_value)
        splits = {
            split: MaskedPhotographs(
                [catalogue.paths[row] for row in rows[split]],
                [catalogue.mask_paths[row] for row in rows[split]],
                [(width, height) for width, height in catalogue.sizes[rows[split]].tolist()],
                table=table,
                settings=settings,
                mean=PHOTO_MEAN,
                centre_share=CENTRE_SHARE,
            )
            for split in SPLITS
        }
        counts = {split: table.class_counts(catalogue.masks[row] for row in rows[split]) for split in SPLITS}
        sizes = {split: len(rows[split]) for split in SPLITS}
        notes = mask_notes(layout, catalogue, table, sizes=sizes, train_counts=counts["train"])
        statistics = PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE
        info = DataInfo(settings.name, 3, catalogue.class_names, *statistics, task=SEGMENTATION)
        super().__init__(settings, info, splits, class_counts=counts, notes=notes)


def count_mask_classes(settings: DataSettings) -> int:
    """Return the number of classes: of the lines of `classes.txt`, or else of the values of all masks.

    Raises:
        UserError: see `MaskFolderData`.
    """
    layout = find_mask_layout(settings)
    names = read_class_names(layout.root) or read_pairs(layout, settings).class_names
    return len(names)


def _check_settings(settings: DataSettings) -> None:
    """Refuse settings that change an image and not its mask, or that take an image to have one class.

    Raises:
        UserError: naming each of them.
    """
    problems = mask_problems(settings)
    if settings.augment != "standard":
        problems.append(
            f"data.augment is {settings.augment}, which would change images and not their masks; expected "
            "standard: random crops and mirroring of both."
        )
    if settings.random_erasing:
        problems.append(
            f"data.random_erasing is {settings.random_erasing:g}, which would erase parts of images and not "
            "of their masks; expected 0."
        )
    if settings.cache is not None:
        problems.append("data.cache is for photographs without masks; expected null.")
    if settings.table is not None:
        problems.append("data.table is for labels and numbers of images; expected null.")
    if problems:
        raise UserError("\n".join(problems))
