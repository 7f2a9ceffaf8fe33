"""`Quantiser`: the record of a quantiser that makes an engine's int8 files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ofa.compression.facts import InputRange
from ofa.compression.quantisation.calibration import Images
from ofa.runtimes.base import Files

Quantise = Callable[[Collection[int]], Files]
"""Takes the positions of the operators that stay in floating point, returns the quantised files."""

OperatorRanges = Sequence[InputRange | None]
"""Ranges of the inputs of operators, in their order; None where the calibration images tell."""


@dataclass(frozen=True)
class Quantiser:
    """A quantiser for an engine's int8 files; `ofa.compression.quantisation.registry` lists them.

    Attributes:
        engine: name of the engine's record in `ofa.runtimes.registry`, whose extra installs the packages.
        packages: packages that the quantiser needs.
        prepare: takes the engine's fp32 files and calibration images, returns the quantising function.
        prepare_trained: the same with the range of the input of each operator, in their order, that the
            network was trained with; None where the quantiser takes all ranges from the images.
    """

    engine: str
    packages: tuple[str, ...]
    prepare: Callable[[Files, Sequence[Images]], Quantise]
    prepare_trained: Callable[[Files, Sequence[Images], OperatorRanges], Quantise] | None = None

    def prepared(self, files: Files, calibration: Sequence[Images], ranges: OperatorRanges) -> Quantise:
        """Return the quantising function, with trained ranges where there are some and they can be used."""
        if self.prepare_trained is None or not any(ranges):
            return self.prepare(files, calibration)
        return self.prepare_trained(files, calibration, ranges)
