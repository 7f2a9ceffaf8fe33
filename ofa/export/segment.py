"""`segment_pictures`: the class of every pixel of pictures by a file of a bundle, as coloured overlays."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.settings import SEGMENTATION
from ofa.data.views import input_view
from ofa.evaluation.segmentation import enlarged
from ofa.export.bundle import Bundle
from ofa.export.classify import check_finite, timed_runs
from ofa.export.fresh_run import load_file

MIN_SIDE = 256
"""Overlays of smaller inputs are enlarged by a whole factor, so that they can be looked at."""

OPACITY = 0.6
BACKGROUND_NAMES = frozenset({"background", "_background_", "unlabelled", "unlabeled", "void", "0"})


@dataclass(frozen=True)
class SegmentedPicture:
    """What a network says about the pixels of one picture.

    Attributes:
        path: file of the picture.
        classes: class of each pixel of the network's input, uint8 (height, width).
        picture: the part of the picture that the network sees.
        overlay: the same in grey, with the colours of the classes laid over it.
        run_ms: milliseconds of a run of the network, without reading the picture.
    """

    path: Path
    classes: NDArray[np.uint8]
    picture: Image.Image
    overlay: Image.Image
    run_ms: float

    def shares(self, class_names: Sequence[str]) -> dict[str, float]:
        """Return the share of the pixels (0..1) of each class that occurs, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(class_names)) / self.classes.size
        order = np.argsort(-counts, kind="stable").tolist()
        return {class_names[position]: float(counts[position]) for position in order if counts[position]}


def check_segmentation(bundle: Bundle) -> None:
    """Raise the error for a bundle whose network tells no classes of pixels.

    Raises:
        UserError: naming its task.
    """
    card = bundle.card
    if card.task != SEGMENTATION:
        raise UserError(
            f"{card.name} is a network for {card.task}; overlays are drawn by one for {SEGMENTATION}. "
            "Pictures are classified by: ofa classify; labels and numbers are told by: ofa predict."
        )


@dataclass(frozen=True)
class UnreadablePicture:
    """A picture that cannot be read, and why."""

    path: Path
    reason: str


def segment_pictures(
    bundle: Bundle,
    file: str,
    paths: Sequence[Path],
    *,
    trust: bool = False,
    progress: ProgressCallback = silent,
) -> Iterator[SegmentedPicture | UnreadablePicture]:
    """Return the classes of the pixels of pictures, one picture after the other.

    Args:
        bundle: bundle of a segmentation network.
        file: key in `bundle.files`, run by its engine on the processor.
        paths: files of the pictures, at least one.
        trust: load files that can run code although they were not exported here; see `ofa.export.trust`.
        progress: called before every picture.

    Raises:
        UserError: if the network is for another task or its engine is not installed; while iterating, if its
            outputs are not finite.
    """
    check_segmentation(bundle)
    logits_of, card = load_file(bundle, file, trust=trust), bundle.card
    palette = class_colours(card.class_names)

    def pictures() -> Iterator[SegmentedPicture | UnreadablePicture]:
        view_of = partial(input_view, size=_shown_size(bundle), share=_share(bundle))
        for position, path in enumerate(paths):
            progress(position, len(paths), "")
            try:
                images, picture = card.read_image(path), read_picture(path, view_of)
            except UnreadableError as error:
                yield UnreadablePicture(path, error.reason)
                continue
            with torch.inference_mode():
                logits, run_ms = timed_runs(logits_of, images, 1)
                classes = _classes(bundle, logits)
            yield SegmentedPicture(path, classes, picture, overlay(picture, classes, palette), run_ms)
        progress(len(paths), len(paths), "")

    return pictures()


def class_colours(class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Return a colour (classes, 3) for each class, black for a background in the first place."""
    colours = np.zeros((len(class_names), 3), np.uint8)
    first = int(class_names[0].lower() in BACKGROUND_NAMES)
    for number in range(len(class_names) - first):
        # Steps of the golden ratio keep neighbours apart.
        hue, value = (number * (math.sqrt(5) - 1) / 2) % 1, 1.0 if number % 2 == 0 else 0.75
        colours[first + number] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, value)]
    return colours


def overlay(picture: Image.Image, classes: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """Return a picture in grey with the colours of its pixels' classes laid over it; black ones are left out.

    Args:
        picture: an RGB image.
        classes: class of each pixel (height, width), at any size.
        palette: colour of each class (classes, 3).
    """
    shown = Image.fromarray(classes).resize(picture.size, Image.Resampling.NEAREST)
    colours = palette[np.asarray(shown)]
    opacity = OPACITY * colours.any(-1, keepdims=True)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    mixed = (1 - opacity) * grey + opacity * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def _shown_size(bundle: Bundle) -> tuple[int, int]:
    """Return width and height of the overlays."""
    _, height, width = bundle.card.input_shape
    factor = math.ceil(MIN_SIDE / max(height, width))
    return factor * width, factor * height


def _share(bundle: Bundle) -> float:
    return bundle.card.preprocessing.centre_share


def _classes(bundle: Bundle, logits: Tensor) -> NDArray[np.uint8]:
    check_finite(bundle, logits)
    _, height, width = bundle.card.input_shape
    pixels = enlarged(logits, logits.new_zeros(1, height, width)).argmax(1)[0]
    return pixels.to(torch.uint8).cpu().numpy()
