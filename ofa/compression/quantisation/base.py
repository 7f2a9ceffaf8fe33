"""`Quantiser`: the record of a quantiser that makes an engine's int8 files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ofa.compression.quantisation.calibration import Images
from ofa.compression.quantisation.trained_inputs import TrainedInputs
from ofa.runtimes.base import Files

Quantise = Callable[[Collection[int]], Files]
"""Takes the positions of the operators that stay in floating point, returns the quantised files."""


class Prepare(Protocol):
    """Prepares an engine's quantiser."""

    def __call__(
        self, files: Files, calibration: Sequence[Images], trained: TrainedInputs | None = None, /
    ) -> Quantise:
        """Return the quantising function.

        Args:
            files: the engine's fp32 files.
            calibration: calibration images.
            trained: ranges that the inputs of layers were trained with, which are not taken from the images.
        """
        ...


@dataclass(frozen=True)
class Quantiser:
    """A quantiser for an engine's int8 files; `ofa.compression.quantisation.registry` lists them.

    Attributes:
        engine: name of the engine's record in `ofa.runtimes.registry`, whose extra installs the packages.
        packages: packages that the quantiser needs.
        prepare: makes the quantising function.
    """

    engine: str
    packages: tuple[str, ...]
    prepare: Prepare
