"""`Quantiser`: the record of a quantiser that makes an engine's int8 files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ofa.compression.quantisation.calibration import Images
from ofa.compression.quantisation.trained_inputs import TrainedInputs
from ofa.runtimes.base import Files

Quantise = Callable[[Collection[int]], Files]
"""Takes the positions of the operators that stay in floating point, returns the quantised files."""


@dataclass(frozen=True)
class Quantiser:
    """A quantiser for an engine's int8 files; `ofa.compression.quantisation.registry` lists them.

    Attributes:
        engine: name of the engine's record in `ofa.runtimes.registry`, whose extra installs the packages.
        packages: packages that the quantiser needs.
        prepare: takes the engine's fp32 files, calibration images, and the ranges that the inputs of layers
            were trained with, if any, which are not taken from the images then; returns the quantising
            function.
    """

    engine: str
    packages: tuple[str, ...]
    prepare: Callable[[Files, Sequence[Images], TrainedInputs | None], Quantise]
