"""Photographs in folders, one folder per class, decoded by worker processes."""

from __future__ import annotations

import numpy as np

from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import SPLITS
from ofa.data.catalogue import read_catalogue
from ofa.data.file_data import CENTRE_SHARE, PHOTO_MEAN, PHOTO_STD, FileData
from ofa.data.folder_splits import split_rows
from ofa.data.layout import find_layout
from ofa.data.notes import folder_notes
from ofa.data.photographs import Photographs
from ofa.data.settings import DataInfo, DataSettings, refuse_settings


class FolderData(FileData):
    """Photographs in a folder per class; `find_layout` says which folders, `split_rows` what is cut."""

    def __init__(self, settings: DataSettings, progress: ProgressCallback = silent) -> None:
        """List and check the files; they are decoded batch by batch.

        Args:
            settings: folder, splits and augmentation.
            progress: called while the files are checked.

        Raises:
            UserError: if a folder is missing or empty, there is a single class, the classes of two folders
                differ, files cannot be read, a split cannot be cut, the cache has too little room, or a
                setting is one of masks or tables.
        """
        refuse_settings(settings, ("ignored_value",), f"only for masks; {settings.name} has none.")
        refuse_settings(settings, ("table",), f"only for labels and numbers; {settings.name} has folders.")
        layout = find_layout(settings)
        catalogue = read_catalogue(layout, settings, progress)
        rows = split_rows(layout, catalogue, settings)
        splits = {
            split: Photographs(
                [catalogue.paths[row] for row in rows[split]],
                catalogue.labels[rows[split]].tolist(),
                [(width, height) for width, height in catalogue.sizes[rows[split]].tolist()],
                settings,
                mean=PHOTO_MEAN,
                centre_share=CENTRE_SHARE,
            )
            for split in SPLITS
        }
        counts = {
            split: tuple(np.bincount(photographs.labels, minlength=len(layout.class_names)).tolist())
            for split, photographs in splits.items()
        }
        cache_note = splits["train"].check_cache()
        notes = (*folder_notes(layout, catalogue, counts), *([cache_note] if cache_note else []))
        info = DataInfo(settings.name, 3, layout.class_names, PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE)
        super().__init__(settings, info, splits, class_counts=counts, notes=notes)


def folder_classes(settings: DataSettings) -> tuple[str, ...]:
    """Return the class names of a folder of photographs: the names of its class folders.

    Raises:
        UserError: if a folder is missing, there are fewer than two classes, or two folders differ in them.
    """
    return find_layout(settings).class_names
