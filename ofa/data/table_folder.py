"""`TableFolderData`: photographs in a folder with a CSV file of their labels or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import SPLITS, check_split
from ofa.data.file_data import CENTRE_SHARE, PHOTO_MEAN, PHOTO_STD, FileData
from ofa.data.folder_splits import split_rows
from ofa.data.image_values import scale_of, value_problems
from ofa.data.photographs import Photographs, Size
from ofa.data.settings import REGRESSION, DataInfo, DataSettings, refuse_settings
from ofa.data.table import read_table
from ofa.data.table_catalogue import read_table_catalogue, table_targets
from ofa.data.table_notes import table_notes
from ofa.data.table_targets import label_counts


class ValuedPhotographs(Photographs):
    """Photographs with a row of labels or numbers each; see `Photographs`."""

    def __init__(
        self,
        paths: Sequence[Path],
        values: Tensor,
        sizes: Sequence[Size],
        settings: DataSettings,
        *,
        mean: tuple[float, ...],
        centre_share: float,
    ) -> None:
        """Take the files, and the targets (n, columns) of each; further arguments as in `Photographs`."""
        # All of one class: where one cannot be read, any other takes its place.
        super().__init__(paths, [0] * len(paths), sizes, settings, mean=mean, centre_share=centre_share)
        self._values = values

    @override
    def _read(self, position: int, seed: int | None) -> tuple[Tensor, Tensor]:
        return self._pixels(position, seed), self._values[position]


class TableFolderData(FileData):
    """Photographs with labels or numbers: batches (images, targets), targets (n, names); see `ImageData`.

    `class_counts` counts the images that have each label. `read_table` says how the file is read,
    `split_rows` what is cut where it names no splits.
    """

    def __init__(self, settings: DataSettings, task: str, progress: ProgressCallback = silent) -> None:
        """Read the table and check the files; they are decoded batch by batch.

        Args:
            settings: folder, table, splits and augmentation.
            task: multi-label classification or regression.
            progress: called while the files are checked.

        Raises:
            UserError: if folder, table or files are missing, do not fit or cannot be read, a split cannot be
                cut, a column of numbers tells nothing, or a setting is none for labels and numbers.
        """
        _check_settings(settings, task)
        catalogue = read_table_catalogue(settings, task, progress)
        rows = split_rows(catalogue.layout, catalogue, settings)
        values = {split: catalogue.targets[rows[split]] for split in SPLITS}
        scale = scale_of(values["train"], catalogue.names) if task == REGRESSION else None
        splits = {
            split: ValuedPhotographs(
                [catalogue.paths[row] for row in rows[split]],
                values[split],
                [(width, height) for width, height in catalogue.sizes[rows[split]].tolist()],
                settings,
                mean=PHOTO_MEAN,
                centre_share=CENTRE_SHARE,
            )
            for split in SPLITS
        }
        self._label_counts = (
            {split: label_counts(values[split]) for split in SPLITS} if scale is None else None
        )
        counts = {split: self._label_counts[split][0] if self._label_counts else () for split in SPLITS}
        cache_note = splits["train"].check_cache()
        notes = [*table_notes(catalogue, values), *([cache_note] if cache_note else [])]
        info = DataInfo(
            *(settings.name, 3, catalogue.names, PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE),
            task=task,
            target_scale=scale,
        )
        super().__init__(settings, info, splits, class_counts=counts, notes=notes)

    @override
    def negative_counts(self, split: str) -> tuple[int, ...] | None:
        check_split(split)
        return None if self._label_counts is None else self._label_counts[split][1]


def count_names(settings: DataSettings, task: str) -> int:
    """Return the number of labels or columns of numbers of a table.

    Raises:
        UserError: if there is no table, or it cannot be read.
    """
    return len(table_targets(read_table(settings), task).names)


def _check_settings(settings: DataSettings, task: str) -> None:
    """Refuse settings of masks and of classes.

    Raises:
        UserError: naming them.
    """
    refuse_settings(settings, ("ignored_value",), f"only for masks; {settings.name} has none.")
    if problems := value_problems(settings, task):
        raise UserError("\n".join(problems))
