"""Inputs for the quantisation of layers that are only timed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_COUNT = 4


def random_inputs(example: Tensor) -> list[NDArray[np.float32]]:
    """Return normally distributed inputs of the example's shape, equal in every call.

    A layer with random weights has no accuracy to lose; plausible ranges are enough.
    """
    rng = np.random.default_rng(0)
    return [rng.standard_normal(tuple(example.shape), dtype=np.float32) for _ in range(_COUNT)]
