"""`DataSettings` and `DataInfo`: the choice of an image set, and its properties."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from ofa.common.errors import UserError
from ofa.common.own_code import check_reference
from ofa.common.text_settings import OpenGroup, PathText
from ofa.data.target_scale import TargetScale

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"
MULTI_LABEL, REGRESSION = "multi_label", "regression"
OUTPUTS_BY_NAME = (CLASSIFICATION, MULTI_LABEL, REGRESSION)
"""Tasks whose networks give one output of an image for each of `DataInfo.class_names`."""

OWN_DATA = "own"
BALANCES = ("none", "sampling", "loss")
AUGMENTATIONS = ("standard", "randaugment", "trivial")
ON_UNREADABLE = ("stop", "skip")

SplitSize = int | float | None
"""Size of a split: a number of images, a share below 1 of every class, or None for `splits.class_quotas`."""


@dataclass(frozen=True)
class DataSettings:
    """Choice of an image set, its splits and its augmentation.

    Attributes:
        name: name of a known set (`ofa.data.sources.SOURCES`); `own` for those that a user's function makes.
        root: folder of the files; null for embedded sets.
        download: whether torchvision may download a missing set into `root`.
        validation_size: images cut from the training set for predictor and selection: a count, a share below
            1, or null for 20 % (at least 20 a class, where that is not over half of it; 10,000 at most).
        crop_padding: pixels of zero padding for random crops of sets held in memory.
        horizontal_flip: whether training images are mirrored at random.
        image_size: side of the images from folder sets in pixels, before resizing to the step's resolution.
        crop_scale: smallest area share of random resized crops of folder sets.
        workers: processes that decode images of folder sets.
        split_seed: seed of the splits that are cut.
        stratified: whether every class gives its part to a split that is cut.
        fill_last_batch: whether an incomplete last batch of an epoch is filled up with the epoch's first
            images instead of being left out.
        test_size: images cut for testing from a folder without test images, like `validation_size`.
        balance: `sampling` draws the classes equally often in training, `loss` weights them; or `none`.
        augment: `standard` crops (and mirrors); `randaugment` and `trivial` add torchvision's random changes.
        random_erasing: probability that a rectangle of a training photograph is erased.
        on_unreadable: `stop` or `skip` where photographs cannot be read.
        cache: folder for shrunk copies of the training photographs; null for none.
        ignored_value: value in the files of masks, beside 255, of pixels that count nowhere.
        table: CSV file of labels or numbers, a path from `root` on; null for the only one in it.
        task: the user's own task, "package.module:Task"; null for that of the images.
        source: name of the function that makes the images `own`, "package.module:make_data".
        kwargs: arguments of that function.
    """

    name: str
    root: PathText | None = None
    download: bool = False
    validation_size: SplitSize = None
    crop_padding: int = 0
    horizontal_flip: bool = False
    image_size: int = 224
    crop_scale: float = 0.25
    workers: int = 2
    split_seed: int = 0
    stratified: bool = False
    fill_last_batch: bool = False
    test_size: SplitSize = None
    balance: str = "none"
    augment: str = "standard"
    random_erasing: float = 0.0
    on_unreadable: str = "stop"
    cache: PathText | None = None
    ignored_value: int = 255
    table: PathText | None = None
    task: str | None = None
    source: str | None = None
    kwargs: Annotated[dict[str, Any], OpenGroup()] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges and names; all errors are reported at once."""
        errors = _size_errors("validation_size", self.validation_size)
        errors += _size_errors("test_size", self.test_size)
        if self.crop_padding < 0 or self.workers < 0 or self.image_size < 1:
            errors.append("crop_padding and workers must not be negative, image_size at least 1.")
        if not 0 < self.crop_scale <= 1:
            errors.append(f"crop_scale is {self.crop_scale}; expected a share of the area in (0, 1].")
        if not 0 <= self.random_erasing <= 1:
            errors.append(f"random_erasing is {self.random_erasing}; expected a probability from 0 to 1.")
        if not 0 <= self.ignored_value <= 255:
            errors.append(f"ignored_value is {self.ignored_value}; expected a value of a mask, 0 to 255.")
        errors += _name_errors("balance", self.balance, BALANCES)
        errors += _name_errors("augment", self.augment, AUGMENTATIONS)
        errors += _name_errors("on_unreadable", self.on_unreadable, ON_UNREADABLE)
        errors += self._own_errors()
        if errors:
            raise UserError("\n".join(errors))

    def _own_errors(self) -> list[str]:
        """Return what is wrong with the settings that name code of the user's own."""
        errors = []
        if self.task is not None:
            errors += check_reference("task", self.task, "a class of your own, package.module:Task")
        if self.source is not None:
            errors += check_reference("data.source", self.source, "package.module:make_data")
        if self.name != OWN_DATA and (self.source is not None or self.kwargs):
            errors.append(f"data.source and data.kwargs are for data=own; these images are {self.name}.")
        return errors


def task_settings(name: str) -> dict[str, str]:
    """Return the settings that `task=NAME` stands for."""
    return {"++data.task": name}


def refuse_settings(settings: DataSettings, names: Sequence[str], reason: str) -> None:
    """Raise the error for settings that a set does not have and that differ from their defaults.

    Raises:
        UserError: naming each of them, and `reason`.
    """
    defaults = {field.name: field.default for field in fields(DataSettings)}
    extra_names = [name for name in names if getattr(settings, name) != defaults[name]]
    if extra_names:
        raise UserError(f"{', '.join(extra_names)}: {reason}")


def _size_errors(name: str, size: SplitSize) -> list[str]:
    if size is None or (isinstance(size, int) and size >= 1) or (isinstance(size, float) and 0 < size < 1):
        return []
    expected = "expected at least 1 image, a share between 0 and 1, or null"
    return [f"{name} is {size}; {expected}."]


def _name_errors(name: str, value: str, known_names: tuple[str, ...]) -> list[str]:
    if value in known_names:
        return []
    matches = difflib.get_close_matches(value, known_names, n=1)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return [f"{name} is {value!r}; expected {', '.join(known_names)}.{hint}"]


@dataclass(frozen=True)
class DataInfo:
    """Properties of an image set that a network depends on.

    Attributes:
        name: name of the image set.
        in_channels: number of channels of an image.
        class_names: name of each class, label or column of numbers.
        mean: mean of the pixels scaled to 0..1, per channel.
        std: standard deviation of the pixels scaled to 0..1, per channel.
        centre_share: share of the short side kept by the square centre crop of evaluation; 1: whole images.
        task: what is told of an image: a key of `ofa.evaluation.tasks.TASKS`, or a class of the user's own,
            "package.module:Task".
        target_scale: scale of the outputs of networks that tell numbers; None for other tasks.
    """

    name: str
    in_channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre_share: float = 1.0
    task: str = CLASSIFICATION
    target_scale: TargetScale | None = None

    def __post_init__(self) -> None:
        """Check that no standard deviation is zero."""
        if min(self.std) < 1e-6:
            raise UserError(
                f"All images of {self.name} have equal values in a channel: nothing can be learnt."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or columns of numbers."""
        return len(self.class_names)
