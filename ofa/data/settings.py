"""`DataSettings` and `DataInfo`: the choice of an image set, and its properties."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.errors import UserError


@dataclass(frozen=True)
class DataSettings:
    """Choice of an image set, its splits and its augmentation.

    Attributes:
        name: name of a known set (`ofa.data.sources.SOURCES`).
        root: folder of the files; null for embedded sets.
        download: whether torchvision may download a missing set into `root`.
        validation_size: images cut from the training set for predictor and selection.
        crop_padding: pixels of zero padding for random crops of sets held in memory.
        horizontal_flip: whether training images are mirrored at random.
        image_size: side of the images from folder sets in pixels, before resizing to the step's resolution.
        crop_scale: smallest area share of random resized crops of folder sets.
        workers: processes that decode images of folder sets.
        split_seed: seed of the validation split.
    """

    name: str
    root: str | None = None
    download: bool = False
    validation_size: int = 0
    crop_padding: int = 0
    horizontal_flip: bool = False
    image_size: int = 224
    crop_scale: float = 0.25
    workers: int = 2
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.validation_size < 1:
            raise UserError(f"validation_size is {self.validation_size}; expected at least 1 image.")
        if self.crop_padding < 0 or self.workers < 0 or self.image_size < 1:
            raise UserError("crop_padding and workers must not be negative, image_size at least 1.")
        if not 0 < self.crop_scale <= 1:
            raise UserError(f"crop_scale is {self.crop_scale}; expected a share of the area in (0, 1].")


@dataclass(frozen=True)
class DataInfo:
    """Properties of an image set that a network depends on.

    Attributes:
        name: name of the image set.
        in_channels: number of channels of an image.
        class_names: name of each label.
        mean: mean of the pixels scaled to 0..1, per channel.
        std: standard deviation of the pixels scaled to 0..1, per channel.
        centre_share: share of the short side kept by the square centre crop of evaluation; 1: whole images.
    """

    name: str
    in_channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre_share: float = 1.0

    def __post_init__(self) -> None:
        """Check that no standard deviation is zero."""
        if min(self.std) < 1e-6:
            raise UserError(
                f"All images of {self.name} have equal values in a channel: nothing can be learnt."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
