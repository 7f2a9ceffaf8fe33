"""`split_rows`: which files of a folder belong to which split, by folders or by a hash of their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ofa.data.base import SPLITS
from ofa.data.catalogue import Catalogue
from ofa.data.layout import SplitFolders
from ofa.data.settings import DataSettings
from ofa.data.splits import cut_split


def split_rows(layout: SplitFolders, catalogue: Catalogue, settings: DataSettings) -> dict[str, list[int]]:
    """Return the rows of each split in a fixed shuffle, so that the first ones are a fair sample.

    Args:
        layout: folders of the splits; those that have none are cut from the training images.
        catalogue: the files.
        settings: sizes and seed of what is cut.

    Raises:
        UserError: if a split cannot be cut; see `cut_split`.
    """
    rows = {split: np.flatnonzero(catalogue.folders == split).tolist() for split in SPLITS}
    labels, root = catalogue.labels.tolist(), layout.root
    # By a hash of the name, so that removing a file moves hardly any other file between the splits.
    for split in SPLITS:
        rows[split].sort(key=lambda row: _digest(catalogue.paths[row].relative_to(root), settings.split_seed))
    # Half of a small class stays for training: a quarter goes to each of two splits, or half to a single one.
    shares = {"test": 1 / 4, "validation": 1 / 2 if "test" in layout.folders else 1 / 3}
    for split, size in (("test", settings.test_size), ("validation", settings.validation_size)):
        if split not in layout.folders:
            rows[split], rows["train"] = cut_split(
                labels,
                rows["train"],
                size,
                stratified=settings.stratified,
                name=f"data.{split}_size",
                source=str(layout.folders["train"]),
                max_share=shares[split],
            )
    return rows


def _digest(path: Path, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{path.as_posix()}".encode("utf-8", "surrogateescape")).digest()
