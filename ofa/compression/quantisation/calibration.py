"""Calibration images, from which a quantiser determines the ranges of activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ofa.common.errors import UserError

Images = NDArray[np.float32]


def single_images(batches: Iterable[Tensor], limit: int) -> list[Images]:
    """Return the first `limit` images of batches (n, channels, h, w), each as (1, channels, h, w).

    Raises:
        UserError: if `limit` is negative.
    """
    if limit < 0:
        raise UserError(f"quantisation_images is {limit}; expected a number of images.")
    every = (image for images in batches for image in images.cpu().float().contiguous().numpy())
    return [np.ascontiguousarray(image[np.newaxis]) for image in islice(every, limit)]


def check_calibration(calibration: Sequence[Images]) -> None:
    """Check that there are images and that all their values are finite.

    Raises:
        UserError: if there are no images, or a value is not finite.
    """
    if not calibration:
        raise UserError(
            "No calibration images were given; a quantiser determines the ranges of activations from them. "
            "Give some hundred training images."
        )
    for position, images in enumerate(calibration):
        if not np.isfinite(images).all():
            raise UserError(f"Calibration input {position} has values that are not finite; check the images.")
