"""The known image sets by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.common.config import build
from ofa.common.errors import UserError, unknown_name
from ofa.common.progress import ProgressCallback, silent
from ofa.common.shipped import read_preset
from ofa.data.base import ImageData
from ofa.data.folder import FolderData, folder_classes
from ofa.data.image_values import ValueData
from ofa.data.mask_folder import MaskFolderData, count_mask_classes
from ofa.data.masks import MaskData
from ofa.data.memory import MemoryData
from ofa.data.own_data import load_own
from ofa.data.settings import MULTI_LABEL, OWN_DATA, REGRESSION, DataSettings
from ofa.data.shape_values import NUMBER_NAMES, SHAPE_NAMES, shape_labels, shape_numbers
from ofa.data.shapes import CLASS_NAMES, draw_shapes
from ofa.data.table_folder import TableFolderData, count_names


@dataclass(frozen=True)
class Source:
    """How to load a set; its channels and number of classes without loading it; whether it has no files.

    Channels and classes of images of the user's own are known when they are loaded, and None here.
    """

    load: Callable[[DataSettings, ProgressCallback], ImageData]
    in_channels: int | None
    num_classes: Callable[[DataSettings], int] | None
    is_embedded: bool = False


def load_data(
    data: str | Path | DataSettings, root: str | Path | None = None, progress: ProgressCallback = silent
) -> ImageData:
    """Load an image set.

    Args:
        data: name of a file of `conf/data/` such as "digits", a YAML file of that kind, or the settings.
        root: folder of the images, for sets that are not embedded; None for the one of the settings.
        progress: called while the files of photographs are checked.

    Images of the user's own are made by the code that the settings name, which runs.

    Raises:
        UserError: for an unknown name, or files that are missing or unfit; see also `load_own`.
    """
    settings = data
    if not isinstance(settings, DataSettings):
        settings = build(DataSettings, read_preset("data", settings), str(data))
    if root is not None:
        settings = dataclasses.replace(settings, root=str(root))
    source = _source(settings)
    if source.is_embedded and settings.root is not None:
        raise UserError(
            f"The folder {settings.root} is given, but {settings.name!r} are embedded and read none. For "
            "pictures in folders choose data=image_folder (experiment=image_folder in a training)."
        )
    loaded = source.load(settings, progress)
    if settings.task is not None:
        loaded.info = dataclasses.replace(loaded.info, task=settings.task)
    return loaded


def describe_data(settings: DataSettings) -> tuple[int, int]:
    """Return channels and number of classes of the set, reading names alone, or masks if there are none."""
    source = _source(settings)
    if source.in_channels is None or source.num_classes is None:
        own = load_data(settings)
        return own.in_channels, own.num_classes
    return source.in_channels, source.num_classes(settings)


def _source(settings: DataSettings) -> Source:
    if settings.name not in SOURCES:
        raise unknown_name("data", settings.name, SOURCES)
    return SOURCES[settings.name]


def _digits(settings: DataSettings, progress: ProgressCallback) -> ImageData:
    """8x8 handwritten digits embedded in scikit-learn; every fifth image of a fixed shuffle is test."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    cut = len(images) // 5
    test, train = order[:cut], order[cut:]
    names = tuple(str(digit) for digit in range(10))
    return MemoryData(settings, names, (images[train], labels[train]), (images[test], labels[test]))


def _shapes(settings: DataSettings, progress: ProgressCallback) -> ImageData:
    """Drawn shapes with masks: 2,000 for training and validation, 500 for testing."""
    return MaskData(settings, CLASS_NAMES, draw_shapes(2000, seed=0), draw_shapes(500, seed=1))


def _shapes_with(
    values_of: Callable[[Tensor], Tensor], names: tuple[str, ...], task: str
) -> Callable[[DataSettings, ProgressCallback], ImageData]:
    """Return the source of drawn shapes with what `values_of` tells of their masks."""

    def load(settings: DataSettings, progress: ProgressCallback) -> ImageData:
        (train, train_masks), (test, test_masks) = draw_shapes(2000, seed=0), draw_shapes(500, seed=1)
        targets = values_of(train_masks), values_of(test_masks)
        return ValueData(settings, names, (train, targets[0]), (test, targets[1]), task)

    return load


def _table(task: str) -> Source:
    """Return the source of a folder of images with a table for a task."""
    return Source(
        lambda settings, progress: TableFolderData(settings, task, progress),
        3,
        lambda settings: count_names(settings, task),
    )


def _torchvision(name: str) -> Callable[[DataSettings, ProgressCallback], ImageData]:
    def load(settings: DataSettings, progress: ProgressCallback) -> ImageData:
        from torchvision import datasets  # takes two seconds; many processes read other sets

        if settings.root is None:
            raise UserError(
                f"Data {settings.name!r} needs its folder: give data.root=FOLDER "
                "(and data.download=true to fetch the files into it)."
            )
        root, dataset = Path(settings.root).expanduser(), getattr(datasets, name)
        try:
            train = dataset(root, train=True, download=settings.download)
            test = dataset(root, train=False, download=settings.download)
        except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
            raise UserError(
                f"Could not load {settings.name} from {root}: {error} Put torchvision's files there or "
                "give data.download=true."
            ) from error
        return MemoryData(settings, tuple(train.classes), _tensors(train), _tensors(test))

    return load


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """Return uint8 images (n, c, h, w) and labels of a torchvision set."""
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(dataset.targets).long()


def _count_folders(settings: DataSettings) -> int:
    return len(folder_classes(settings))


SOURCES: dict[str, Source] = {
    "digits": Source(_digits, 1, lambda _: 10, is_embedded=True),
    "shapes": Source(_shapes, 3, lambda _: len(CLASS_NAMES), is_embedded=True),
    "fashion_mnist": Source(_torchvision("FashionMNIST"), 1, lambda _: 10),
    "cifar10": Source(_torchvision("CIFAR10"), 3, lambda _: 10),
    "cifar100": Source(_torchvision("CIFAR100"), 3, lambda _: 100),
    "image_folder": Source(FolderData, 3, _count_folders),
    "imagenet": Source(FolderData, 3, _count_folders),
    "segmentation_folder": Source(MaskFolderData, 3, count_mask_classes),
    "shapes_labels": Source(
        _shapes_with(shape_labels, SHAPE_NAMES, MULTI_LABEL), 3, lambda _: len(SHAPE_NAMES), is_embedded=True
    ),
    "multi_label_folder": _table(MULTI_LABEL),
    "shapes_numbers": Source(
        _shapes_with(shape_numbers, NUMBER_NAMES, REGRESSION),
        3,
        lambda _: len(NUMBER_NAMES),
        is_embedded=True,
    ),
    "regression_folder": _table(REGRESSION),
    OWN_DATA: Source(load_own, None, None),
}
